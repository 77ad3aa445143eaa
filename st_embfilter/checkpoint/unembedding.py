"""The unembedding matrix W_U of any source, read alone, in row blocks.

The backbone is never instantiated: the tensor is found by its name in the checkpoint's headers,
and only its bytes are read.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from st_embfilter.checkpoint.causal_config import load_config
from st_embfilter.checkpoint.gguf_file import check_matrix, dequantize_rows, open_gguf
from st_embfilter.checkpoint.head_tensor import find_head, find_word_embeddings
from st_embfilter.checkpoint.quantized_head import REMEDY, Scale, find_scale, refuse_packed
from st_embfilter.checkpoint.safetensors_file import DTYPES, StoredTensor, read_header, read_rows
from st_embfilter.checkpoint.source import ADAPTER_CONFIG, Source, adapter_error, resolve_source
from st_embfilter.errors import CheckpointError, NoUnembeddingError
from st_embfilter.row_blocks import ahead
from st_embfilter.spectral.spectrum import Spectrum

# Enough for a matrix product to run at its full speed, and little next to d × d.
BLOCK_ROWS = 1536

RowReader = Callable[[int], Iterator[tuple[bytes | bytearray, Tensor]]]


class Unembedding:
    """W_U (V × d) of a causal language model, on disk or on a hub.

    Use :meth:`from_pretrained`.

    Attributes:
        source: What was named: a path or a hub id.
        revision: The commit of a hub repository, else ``None``.
        tensor_name: The tensor's name in the checkpoint.
        dtype: The stored dtype's name (``"BF16"``, or ``"Q8_0"`` in a GGUF file).
        shape: ``(V, d)``.
        nbytes: How many bytes the matrix takes in the checkpoint.
    """

    def __init__(
        self,
        source: Source,
        tensor_name: str,
        dtype: str,
        shape: tuple[int, int],
        nbytes: int,
        read: RowReader,
    ) -> None:
        self.source = source.name
        self.revision = source.revision
        # Of a local path only the last part is told to others.
        self._label = source.gguf_file or (source.folder.name if source.folder else source.name)
        self.tensor_name = tensor_name
        self.dtype = dtype
        self.shape = shape
        self.nbytes = nbytes
        self._read = read
        self._sha256: str | None = None

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None) -> "Unembedding":
        """Find W_U in a source. Reads only the configuration and the headers.

        Args:
            source: A folder with ``config.json`` and safetensors files, a GGUF file, or a hub id.
            revision: Branch, tag or commit; for a hub id only.

        Raises:
            SourceNotFoundError: If there is no such source, or the hub can't be reached.
            NoUnembeddingError: If it is not a causal language model, or its head isn't there.
            CheckpointError: If files are missing, corrupt, truncated or not safetensors.
            MissingDependencyError: If the source is a GGUF file and ``gguf`` isn't installed.
        """
        found = resolve_source(source, revision)
        return cls.from_source(found, None if found.gguf_file else load_config(found))

    @classmethod
    def from_source(cls, source: Source, config: Any) -> "Unembedding":
        """As :meth:`from_pretrained`, from a source that was found before.

        Args:
            source: Where the model is.
            config: Its configuration, as ``load_config`` gives it; None of a GGUF file.
        """
        return _from_gguf(source) if source.gguf_file else _from_safetensors(source, config)

    @classmethod
    def from_word_embeddings(cls, source: Source) -> "Unembedding":
        """The input embeddings of a model without a head, such as BERT, in the place of W_U.

        Such an encoder was pretrained with a head that is tied to them.

        Raises:
            NoUnembeddingError: If there is no such matrix, or more than one.
            CheckpointError: If files are missing, corrupt, truncated or not safetensors.
        """
        files = _tensor_files(source)
        return _from_tensor(source, files, find_word_embeddings(source.name, list(files)), {})

    def row_blocks(self, progress: bool = False) -> Iterator[Tensor]:
        """W_U's rows in order, as ``(rows, d)`` tensors at the stored dtype.

        A GGUF matrix comes dequantized to float32. A full pass also computes :attr:`sha256`.

        Args:
            progress: Show a progress bar on stderr.
        """
        digest = hashlib.sha256()
        with tqdm(
            total=self.nbytes,
            desc="Reading W_U",
            unit="B",
            unit_scale=True,
            disable=not progress,
        ) as bar:

            def read() -> Iterator[Tensor]:
                for stored, block in self._read(BLOCK_ROWS):
                    digest.update(stored)
                    bar.update(len(stored))
                    yield block

            yield from ahead(read(), 1)
        self._sha256 = digest.hexdigest()

    @property
    def sha256(self) -> str:
        """SHA-256 of the matrix's bytes as they are stored. Reads them if no pass did before."""
        if self._sha256 is None:
            for _ in self.row_blocks():
                pass
        assert self._sha256 is not None
        return self._sha256

    def provenance(self) -> dict[str, Any]:
        """What this matrix is, for an artifact's manifest. Reads it if no pass did before."""
        return {
            "source": self._label,
            "revision": self.revision,
            "tensor": self.tensor_name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class RowBlocks:
    """W_U's row blocks as something that can be gone over more than once."""

    unembedding: Unembedding
    progress: bool = False

    def __iter__(self) -> Iterator[Tensor]:
        """Read the blocks, see :meth:`Unembedding.row_blocks`."""
        return self.unembedding.row_blocks(self.progress)


def compute_spectrum(unembedding: Unembedding, progress: bool = False) -> Spectrum:
    """The spectrum of W_U with its provenance, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spectrum = Spectrum.from_row_blocks(RowBlocks(unembedding, progress), device=device)
    return replace(spectrum, provenance=unembedding.provenance())


def _from_safetensors(source: Source, config: Any) -> Unembedding:
    files = _tensor_files(source)
    name = find_head(source.name, list(files), config)
    return _from_tensor(source, files, name, getattr(config, "quantization_config", None) or {})


def _from_tensor(
    source: Source, files: dict[str, str], name: str, quantization: dict[str, Any]
) -> Unembedding:
    tensor = _find(source, files, name)
    scale_name = find_scale(source.name, name, files)
    shape = _check_matrix(source.name, name, tensor, scaled=scale_name is not None)
    scale: Scale | None = None
    if scale_name:
        found = _find(source, files, scale_name)
        (values,) = _read(source, files[scale_name], replace(found, shape=(1, found.size)), 1)
        scale = Scale.of(scale_name, values[1].reshape(found.shape), shape, quantization)

    def read(rows: int) -> Iterator[tuple[bytearray, Tensor]]:
        first = 0
        for stored, block in _read(source, files[name], tensor, rows):
            yield stored, scale.undo(block, first) if scale else block
            first += len(block)

    return Unembedding(source, name, tensor.dtype, shape, tensor.end - tensor.begin, read)


def _find(source: Source, files: dict[str, str], name: str) -> StoredTensor:
    where = f"{source.name}/{files[name]}"
    with source.open(files[name]) as file:
        tensor = read_header(file, where).get(name)
    if tensor is None:
        raise CheckpointError(f"{where} doesn't hold {name}, though the index says so")
    return tensor


def _read(
    source: Source, filename: str, tensor: StoredTensor, rows: int
) -> Iterator[tuple[bytearray, Tensor]]:
    with source.open_span(filename, tensor.begin, tensor.end) as file:
        yield from read_rows(file, tensor, rows, f"{source.name}/{filename}")


def _tensor_files(source: Source) -> dict[str, str]:
    """For the name of each tensor, the file that holds it."""
    files = {name: file for file, names in _shards(source).items() for name in names}
    refuse_packed(source.name, files)
    return files


def _shards(source: Source) -> dict[str, list[str]]:
    """The names of the tensors in each safetensors file."""
    # The order is transformers'. What is in the local cache needs no hub.
    candidates = ("model.safetensors", "model.safetensors.index.json")
    cached = [] if source.folder else [name for name in candidates if source.local_path(name)]
    found = next((name for name in cached or candidates if source.has(name)), None)
    if found == "model.safetensors.index.json":
        index = source.read_json("model.safetensors.index.json").get("weight_map")
        if not isinstance(index, dict):
            raise CheckpointError(f"{source.name}: model.safetensors.index.json has no weight_map")
        shards: dict[str, list[str]] = {}
        for name, filename in index.items():
            shards.setdefault(str(filename), []).append(name)
        return shards
    if found == "model.safetensors":
        with source.open("model.safetensors") as file:
            header = read_header(file, f"{source.name}/model.safetensors")
        return {"model.safetensors": list(header)}
    if source.has(ADAPTER_CONFIG):
        raise adapter_error(source.name, source.read_json(ADAPTER_CONFIG))
    raise CheckpointError(
        f"{source.name} has no model.safetensors: pickled weights (.bin) are not read. Save it "
        f"with transformers' save_pretrained, which writes safetensors"
    )


def _check_matrix(source: str, name: str, tensor: StoredTensor, scaled: bool) -> tuple[int, int]:
    dtype = DTYPES.get(tensor.dtype)
    readable = dtype is not None and (dtype.is_floating_point or (scaled and dtype == torch.int8))
    if not readable:
        raise CheckpointError(
            f"{source}: {name} is stored as {tensor.dtype}, a quantized head that can't be read: "
            f"{REMEDY}"
        )
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise CheckpointError(f"{source}: {name} is not a matrix but of shape {tensor.shape}")
    return tensor.shape[0], tensor.shape[1]


def _from_gguf(source: Source) -> Unembedding:
    assert source.folder and source.gguf_file
    reader = open_gguf(source.folder / source.gguf_file)
    architecture = reader.get_field("general.architecture")
    name = architecture.contents() if architecture else "unknown"
    split = reader.get_field("split.count")
    if split and split.contents() > 1:
        raise CheckpointError(
            f"{source.name} is one part of a split GGUF file: merge the parts with "
            f"llama-gguf-split --merge"
        )
    causal = reader.get_field(f"{name}.attention.causal")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    tensor = tensors.get("output.weight") or tensors.get("token_embd.weight")
    if tensor is None or (causal is not None and not causal.contents()):
        raise NoUnembeddingError(
            f"{source.name} is a {name} model without a language-model head: use a causal "
            f"language model's GGUF file"
        )
    check_matrix(tensor, source.name)
    # GGUF gives a shape with the fastest axis first: (d, V).
    width, height = (int(extent) for extent in tensor.shape)
    return Unembedding(
        source,
        tensor.name,
        tensor.tensor_type.name,
        (height, width),
        int(tensor.n_bytes),
        partial(dequantize_rows, tensor),
    )
