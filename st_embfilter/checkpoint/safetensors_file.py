"""Read one tensor of a safetensors file in row blocks, and nothing else of the file.

The safetensors library maps a file into memory: pages that were read count as the process's own,
and a file on a hub can't be mapped. Here rows are read with plain reads at their offsets, so the
same code serves a local file and range requests.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from st_embfilter.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# The library's own limit: a longer header is taken for a broken or hostile file.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its file.

    Attributes:
        dtype: safetensors' name of the dtype, as ``"BF16"``.
        shape: The tensor's shape.
        begin: First byte in the file.
        end: One past the last byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(file: BinaryIO, where: str) -> dict[str, StoredTensor]:
    """Read and check a safetensors header.

    Args:
        file: Open for random access.
        where: The file's name for error messages.

    Raises:
        CheckpointError: If the header is not one, or the file's size doesn't fit it (as after a
            download that was cut off).
    """
    size = file.seek(0, 2)
    file.seek(0)
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(f"{where} is corrupt or truncated: it has no whole header")
    data = 8 + length
    tensors: dict[str, StoredTensor] = {}
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
            # JSON has true, 1.5, 1e999 and "1" as well.
            if not isinstance(dtype, str) or any(type(n) is not int for n in (begin, end, *shape)):
                raise ValueError(f"the entry of {name!r} is not one of a tensor")
            tensors[name] = StoredTensor(dtype, tuple(shape), data + begin, data + end)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{where} is corrupt: its header can't be read: {error}") from error
    position = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        # The format has neither gaps nor overlaps: where one shows, an offset is wrong.
        backwards = tensor.end < tensor.begin or min(tensor.shape, default=0) < 0
        if tensor.begin != position or backwards:
            raise CheckpointError(f"{where} is corrupt: {name} has impossible offsets or shape")
        position = tensor.end
    if position > size:
        raise CheckpointError(
            f"{where} is truncated: it should have {position:,} bytes and has {size:,}. "
            f"Fetch it again"
        )
    if position < size:
        raise CheckpointError(f"{where} is corrupt: it has bytes that belong to no tensor")
    return tensors


def read_rows(
    file: BinaryIO, tensor: StoredTensor, rows: int, where: str
) -> Iterator[tuple[bytearray, Tensor]]:
    """Read a matrix in blocks of rows, each as its raw bytes and as a tensor over them.

    Args:
        file: Open at the matrix's first byte.
        tensor: The matrix.
        rows: How many rows make a block.
        where: The file's name for error messages.

    Raises:
        CheckpointError: If the dtype is not known, or the file ends early.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise CheckpointError(f"{where}: dtype {tensor.dtype} is not one that can be read")
    height, width = tensor.shape
    row_bytes = width * dtype.itemsize
    if tensor.size * dtype.itemsize != tensor.end - tensor.begin:
        raise CheckpointError(f"{where} is corrupt: a tensor's shape doesn't fit its bytes")
    for first in range(0, height, rows):
        count = min(rows, height - first)
        buffer = bytearray(count * row_bytes)
        if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            raise CheckpointError(f"{where} ends early: it is truncated. Fetch it again")
        yield buffer, torch.frombuffer(buffer, dtype=dtype).view(count, width)
