"""How filtered vectors are stored: as floats, or quantized as sentence-transformers does it.

The names and the arithmetic are those of ``sentence_transformers.util.quantization``'s
``quantize_embeddings``; a test holds both together. It isn't called: it takes seconds to import,
and copies every block several times.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import MisuseError

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# Dimension by dimension, between the smallest and the largest value.
RANGED = ("int8", "uint8")
# One bit a dimension, eight in a byte.
PACKED = ("binary", "ubinary")
# They have no NaN.
INTEGER = (*RANGED, *PACKED)
Floats = NDArray[np.float32]
Stored = NDArray[np.generic]
STEPS = 255


def stored_dtype(precision: Precision) -> np.dtype[np.generic]:
    """The dtype that vectors of a precision are stored in."""
    return np.dtype({"binary": "int8", "ubinary": "uint8"}.get(precision, precision))


def stored_width(precision: Precision, dimensions: int) -> int:
    """How many numbers a stored vector has."""
    return (dimensions + 7) // 8 if precision in PACKED else dimensions


def convert(rows: Floats, precision: Precision, ranges: Floats | None = None) -> Stored:
    """Vectors ``(n, k)`` in a precision.

    Args:
        rows: float32.
        precision: As sentence-transformers names it; float16 besides.
        ranges: ``(2, k)``, the smallest and the largest value of every dimension; for int8 and
            uint8.

    Raises:
        MisuseError: If a number is too large for float16.
    """
    stored: Stored
    match precision:
        case "float32":
            return rows
        case "float16":
            return half(rows)
        case "ubinary":
            stored = np.packbits(rows > 0, axis=-1)
            return stored
        case "binary":
            # As sentence-transformers: the byte less 128.
            stored = (np.packbits(rows > 0, axis=-1) ^ 0x80).view(np.int8)
            return stored
    assert ranges is not None
    starts = ranges[0]
    steps = (ranges[1] - starts) / np.float32(STEPS)
    steps[steps == 0] = 1
    levels = rows - starts
    levels /= steps
    np.floor(levels, out=levels)
    np.clip(levels, 0, STEPS, out=levels)
    if precision == "uint8":
        stored = levels.astype(np.uint8)
        return stored
    levels -= 128
    stored = levels.astype(np.int8)
    return stored


def half(rows: Floats) -> Stored:
    """Vectors in float16; NaN stays NaN, and nothing becomes infinity."""
    with np.errstate(over="ignore"):
        halves = rows.astype(np.float16)
    beyond = np.isinf(halves)
    if beyond.any():
        largest = float(np.abs(rows[beyond]).max())
        raise MisuseError(
            f"a filtered vector holds a number of size {largest:,.0f}, and float16 ends at "
            f"65,504: use --dtype float32, or --normalize"
        )
    return halves
