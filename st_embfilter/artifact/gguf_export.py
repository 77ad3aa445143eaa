"""An artifact as one GGUF file, for llama.cpp and what is built on it (Ollama, LM Studio).

The language model's own GGUF file with the filter as one more block (:mod:`.filter_block`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from st_embfilter._compat import tokenize
from st_embfilter.artifact.filter_block import FilterBlock, common_direction, filter_block
from st_embfilter.artifact.thin import is_thin
from st_embfilter.artifact.verification import is_exact, load_plain, verify
from st_embfilter.checkpoint.gguf_file import open_gguf
from st_embfilter.errors import MisuseError, SourceNotFoundError
from st_embfilter.files import atomic_output, check_absent
from st_embfilter.layout.manifest import Manifest
from st_embfilter.pipeline.automatic import calibration_texts
from st_embfilter.pipeline.prompts import PLACEHOLDER
from st_embfilter.vectors.vector_filter import VectorFilter

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

# Those whose blocks are known to be of this kind, and were run in llama.cpp's server.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
LAST_TOKEN = 3  # llama.cpp's number for it.
# llama.cpp scales Gemma 3 27B's attention otherwise, and knows it by its number of layers.
GEMMA3_27B_LAYERS = 62
# Norms of the block that let everything through; of Gemma's, one scales what is added.
OPEN_NORMS = ("attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm")
LOUD_NORM, LOUDNESS = "post_ffw_norm", 1e8
# So many texts tell what the embeddings of all have in common.
TEXTS = 64
# Of rows of the word embeddings, as quantization leaves them.
SMALLEST_COSINE = 0.9
Array = NDArray[Any]


def export_gguf(artifact: str | Path, model: str | Path, out: str | Path, dims: int | None) -> Path:
    """Write the language model's GGUF file anew, with the filter in it.

    Args:
        artifact: The artifact's folder.
        model: A GGUF file of the language model that it was built from, of any quantization.
        out: The file to make. It appears whole or not at all.
        dims: Keep the first so many dimensions, if not all.

    Returns:
        The file.

    Raises:
        MisuseError: If the artifact is thin, exact, or pools more than the last token, the file is
            of another language model or of an architecture that isn't known, or there isn't room
            for the filter; of its kinds, BandError if there are no such dimensions.
        CheckpointError: If the file is corrupt.
        SourceNotFoundError: If there is no such folder or file.
        OutputExistsError: If ``out`` exists.
        OutputWriteError: If it can't be written.
    """
    folder, source, out = Path(artifact), Path(model), Path(out)
    for path, there in ((folder, folder.is_dir()), (source, source.is_file())):
        if not there:
            raise SourceNotFoundError(f"{path}: no such {'file' if path == source else 'folder'}")
    check_absent(out)
    reader = open_gguf(source)
    _check_carrier(reader, source.name)  # Before minutes of work.
    verify(folder)
    manifest = Manifest.read(folder)
    if is_thin(folder) or is_exact(folder) or manifest.prompt.count(PLACEHOLDER) > 1:
        raise MisuseError(
            f"{folder} is thin, exact, or of Echo: it takes the portable form, whose last token is "
            f"pooled"
        )
    matrix = VectorFilter.from_artifact(folder, dims).matrix
    loaded = load_plain(folder)
    _check_same_model(reader, loaded[0].auto_model, source.name)
    final_norm = _dequantized(reader, "output_norm.weight").ravel()
    feed_forward = int(_setting(reader, "feed_forward_length"))
    direction = common_direction(_last_states(loaded))
    block = filter_block(matrix, final_norm, feed_forward, direction)
    with atomic_output(out) as partial:
        _write(reader, block, len(matrix), manifest, partial)
    return out


def _check_carrier(reader: "GGUFReader", name: str) -> None:
    """Raise :class:`MisuseError` unless a file can carry a block."""
    architecture = _contents(reader, "general.architecture")
    experts = reader.get_field(f"{architecture}.expert_count")
    if architecture not in ARCHITECTURES or (experts and experts.contents()):
        raise MisuseError(
            f"{name} is of the architecture {architecture}, or a mixture of experts: the filter is "
            f"carried by dense {', '.join(ARCHITECTURES)} models"
        )
    if architecture == "gemma3" and _setting(reader, "block_count") == GEMMA3_27B_LAYERS:
        raise MisuseError(
            f"{name}: llama.cpp takes one more layer of Gemma 3 27B for another model"
        )


def _check_same_model(reader: "GGUFReader", backbone: Any, name: str) -> None:
    """Raise :class:`MisuseError` unless a file is of a backbone."""
    own = backbone.get_input_embeddings().weight.detach().float().cpu().numpy()
    tensor = next(t for t in reader.tensors if t.name == "token_embd.weight")
    rows = np.linspace(0, min(len(own), len(tensor.data)) - 1, 100).astype(int)
    there = _dequantize(np.array(tensor.data[rows]), tensor.tensor_type)
    if there.shape[1] != own.shape[1]:
        raise MisuseError(f"{name} is {there.shape[1]} wide, the artifact's model {own.shape[1]}")
    lengths = np.linalg.norm(there, axis=1) * np.linalg.norm(own[rows], axis=1)
    cosines = (there * own[rows]).sum(axis=1) / np.maximum(lengths, 1e-12)
    if not np.median(cosines) >= SMALLEST_COSINE:
        raise MisuseError(
            f"{name} is of another language model than the artifact: their word embeddings differ "
            f"(cosine {np.median(cosines):.2f})"
        )


@torch.inference_mode()
def _last_states(model: Any) -> Array:
    """The last tokens' states in front of the final norm, of some texts, ``(n, d)``."""
    seen: list[torch.Tensor] = []
    norm = model[0].auto_model.norm
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    states = []
    try:
        for text in tqdm(calibration_texts(None).texts[:TEXTS], desc="States", unit="text"):
            model[0](tokenize(model, [text]))
            states.append(seen.pop()[0, -1].float().numpy())
    finally:
        handle.remove()
    return np.stack(states)


def _write(
    reader: "GGUFReader", block: FilterBlock, k: int, manifest: Manifest, path: Path
) -> None:
    """All of a file, with one more block."""
    import gguf

    architecture = _contents(reader, "general.architecture")
    layers = int(_setting(reader, "block_count"))
    numbers = {
        f"{architecture}.block_count": layers + 1,
        f"{architecture}.pooling_type": LAST_TOKEN,
        "embfilter.dimensions": k,
    }
    texts = {"embfilter.prompt": manifest.prompt, "embfilter.band": manifest.band}
    writer = gguf.GGUFWriter(str(path), architecture)
    _copy_settings(reader, writer, {*numbers, *texts})
    for name, number in numbers.items():
        writer.add_uint32(name, number)
    for name, text in texts.items():
        writer.add_string(name, text)
    for tensor in reader.tensors:
        # The file writes text no more, and needs no head.
        if tensor.name not in ("output_norm.weight", "output.weight"):
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.add_tensor("output_norm.weight", block.final_norm)
    matrices = {"ffn_gate": block.gate, "ffn_up": block.up, "ffn_down": block.down}
    last = f"blk.{layers - 1}."
    for tensor in reader.tensors:
        if tensor.name.startswith(last):
            part = tensor.name.removeprefix(last)
            shape = tuple(int(extent) for extent in reversed(tensor.shape))
            _add(writer, f"blk.{layers}.{part}", matrices, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=True)
    writer.close()


def _add(writer: "GGUFWriter", name: str, matrices: dict[str, Any], shape: tuple[int, ...]) -> None:
    """One tensor of the block, of the shape that it has in the block before."""
    import gguf

    part = name.split(".")[2]
    if part in matrices:
        writer.add_tensor(name, matrices[part].astype(np.float16))
    elif len(shape) == 1:
        value = LOUDNESS if part == LOUD_NORM else float(part in OPEN_NORMS)
        writer.add_tensor(name, np.full(shape, value, np.float32))
    else:
        zeros = np.zeros(shape, np.float32)
        small = gguf.GGMLQuantizationType.Q8_0
        if shape[1] % 32:
            writer.add_tensor(name, zeros.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(zeros, small), raw_dtype=small)


def _copy_settings(reader: "GGUFReader", writer: "GGUFWriter", others: set[str]) -> None:
    """All of a file's settings but some, as they are."""
    from gguf import GGUFValueType

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in {"general.architecture", *others}:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)


def _contents(reader: "GGUFReader", name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise MisuseError(f"the GGUF file says no {name}: it is no language model's")
    return field.contents()


def _setting(reader: "GGUFReader", name: str) -> Any:
    """A setting of the file's architecture."""
    return _contents(reader, f"{_contents(reader, 'general.architecture')}.{name}")


def _dequantized(reader: "GGUFReader", name: str) -> Array:
    tensor = next(t for t in reader.tensors if t.name == name)
    return _dequantize(np.array(tensor.data), tensor.tensor_type)


def _dequantize(data: Array, kind: Any) -> Array:
    import gguf

    return gguf.quants.dequantize(data, kind)
