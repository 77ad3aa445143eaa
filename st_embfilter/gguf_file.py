"""Read one tensor of a GGUF file, dequantized in row blocks.

The ``gguf`` package does the format. It is an extra, so it is imported when it is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

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
        return gguf.GGUFReader(str(path))
    except (ValueError, IndexError, OSError, KeyError) as error:
        raise CheckpointError(f"{path.name} is corrupt or truncated: {error}") from error


@contextmanager
def parsed_once() -> Iterator[None]:
    """Have every GGUF file parsed once, however often it is opened inside the ``with``.

    transformers opens it four times to load one model, and parsing goes through the vocabulary
    token by token in Python: on two cores 5 s for 49,152 tokens, each time.
    """
    try:
        import gguf
    except ImportError:
        yield
        return
    original = gguf.GGUFReader
    gguf.GGUFReader = cache(original)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = original  # type: ignore[misc]


def dequantize_rows(tensor: "ReaderTensor", rows: int) -> Iterator[tuple[bytes, Tensor]]:
    """A matrix in blocks of rows, each as its stored bytes and as float32."""
    import gguf

    for first in range(0, tensor.data.shape[0], rows):
        stored = np.ascontiguousarray(tensor.data[first : first + rows])
        values = gguf.quants.dequantize(stored, tensor.tensor_type)
        yield stored.tobytes(), torch.from_numpy(values)
