"""Read one tensor of a GGUF file, dequantized in row blocks.

The ``gguf`` package does the format. It is an extra, so it is imported when it is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from st_embfilter.errors import CheckpointError, MissingDependencyError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor


def open_gguf(path: Path) -> "GGUFReader":
    """Parse a GGUF file's metadata and find its tensors.

    Raises:
        MissingDependencyError: If ``gguf`` isn't installed.
        CheckpointError: If the file is corrupt or truncated.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError(
            "reading a GGUF file needs two more packages: pip install 'st-embfilter[gguf]'"
        ) from error
    try:
        with parsed_once():
            return gguf.GGUFReader(str(path))
    except Exception as error:  # A broken file is not checked for but stumbled upon.
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path.name} is corrupt or truncated: {reason}") from error


@contextmanager
def parsed_once() -> Iterator[None]:
    """Have every GGUF file parsed once, however often it is opened inside the ``with``.

    transformers opens it four times to load one model, and parsing goes through the vocabulary
    token by token in Python: on two cores 5 s for 49,152 tokens, each time. The reader is also one
    that stops at the end of the file: gguf's own reads on beyond it, and an array that claims 2^40
    entries keeps it busy until the memory is full.
    """
    try:
        import gguf
        from gguf.gguf_reader import GGUFReader
    except ImportError:
        yield
        return
    if gguf.GGUFReader is not GGUFReader:  # nested
        yield
        return

    class CheckedReader(GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **named: Any) -> Any:
            found = super()._get(offset, dtype, count, *rest, **named)
            if len(found) < count:
                raise ValueError("it ends early")
            return found

    gguf.GGUFReader = cache(CheckedReader)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = GGUFReader  # type: ignore[misc]


def tokenizer_settings(path: Path) -> dict[str, Any]:
    """What the file says of its tokenizer, by llama.cpp's names; what it doesn't say is missing."""
    names = ("add_bos_token", "bos_token_id", "eos_token_id")
    reader = open_gguf(path)
    fields = {name: reader.get_field(f"tokenizer.ggml.{name}") for name in names}
    return {name: field.contents() for name, field in fields.items() if field}


def check_matrix(tensor: "ReaderTensor", where: str) -> None:
    """Check that a tensor can be given in rows.

    Raises:
        CheckpointError: If it isn't a matrix, or quantized in a way that gguf can't undo.
    """
    import gguf

    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise CheckpointError(
            f"{where}: {tensor.name} is not a matrix but of shape {tensor.shape.tolist()}"
        )
    try:
        gguf.quants.dequantize(np.array(tensor.data[:1]), tensor.tensor_type)
    except NotImplementedError as error:
        raise CheckpointError(f"{where}: {tensor.name} can't be read: {error}") from error


def dequantize_rows(tensor: "ReaderTensor", rows: int) -> Iterator[tuple[bytes, Tensor]]:
    """A matrix in blocks of rows, each as its stored bytes and as float32."""
    import gguf

    for first in range(0, tensor.data.shape[0], rows):
        # A copy: a write to a view of the mapped file would kill the process.
        stored = np.array(tensor.data[first : first + rows])
        values = gguf.quants.dequantize(stored, tensor.tensor_type)
        yield stored.tobytes(), torch.from_numpy(values)
