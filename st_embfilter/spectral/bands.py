"""Which singular directions are kept, and in what order.

The names are the reference's, and say what is *removed*: ``edge`` removes both ends of the
spectrum (EmbedFilter, arXiv 2606.07502), ``tail`` the smallest singular values, ``head`` the
largest, ``mid`` the middle, ``random`` all but a random choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from st_embfilter.errors import BandError

BandName = Literal["edge", "head", "tail", "mid", "random"]
BAND_NAMES: tuple[str, ...] = get_args(BandName)
# Not a choice of directions: each is weighted by what a sample of embeddings shows of it (see
# calibration.py).
AUTO: Literal["auto"] = "auto"
Band = BandName | Literal["auto"] | Sequence[int]
# Those of which an embedding's first j numbers are the filter for j dimensions.
NESTED = ("edge", AUTO)
DEFAULT_RATIO = 2


@dataclass(frozen=True)
class BandChoice:
    """Which directions are to be kept, and how many.

    Attributes:
        ratio: The filter ratio τ: ``k = d // τ`` dimensions are kept. 2 if neither this nor ``k``
            is given.
        k: The number of kept dimensions.
        band: ``edge`` (the paper's), ``auto``, ``head``, ``tail``, ``mid``, ``random``, or indices
            of singular directions (0 is the largest singular value).
        seed: For ``random``.
    """

    ratio: float | None = None
    k: int | None = None
    band: Band = "edge"
    seed: int = 0

    def dimensions(self, width: int) -> int:
        """The number of kept dimensions of a matrix of that width.

        Raises:
            BandError: If ratio or k are out of range.
        """
        if self.ratio is None and self.k is None:
            return kept_dimensions(width, DEFAULT_RATIO)
        return kept_dimensions(width, self.ratio, self.k)

    def indices(self, width: int) -> list[int]:
        """The kept directions of a matrix of that width, see :func:`band_indices`.

        Raises:
            BandError: If ratio, k or band don't fit it, or the band is ``auto``.
        """
        if isinstance(self.band, str):
            return band_indices(width, self.dimensions(width), self.band, self.seed)
        return band_indices(width, len(self.band), self.band)


def kept_dimensions(width: int, ratio: float | None = None, k: int | None = None) -> int:
    """The number of kept dimensions, from a filter ratio τ or given as ``k``.

    Args:
        width: d, the width of W_U.
        ratio: The filter ratio τ, at least 1: ``k = d // τ``.
        k: The number itself, from 1 to ``width``. One of ``ratio`` and ``k`` is given.

    Returns:
        k, from 1 to ``width``.

    Raises:
        BandError: If both or neither are given, or the value is out of range.
    """
    if (ratio is None) == (k is None):
        raise BandError("give either a filter ratio or a number of dimensions k, not both")
    if ratio is not None:
        if not (math.isfinite(ratio) and 1 <= ratio <= width):
            raise BandError(
                f"the filter ratio must be from 1 (keep all) to the width {width} (keep one "
                f"dimension), not {ratio}"
            )
        return int(width // ratio)
    assert k is not None
    if not 1 <= k <= width:
        raise BandError(f"the number of kept dimensions must be from 1 to {width}, not {k}")
    return int(k)


def edge_band(width: int, k: int) -> list[int]:
    """The bulk that is left without both ends, from the centre of the spectrum outwards.

    The kept set is the reference's, ``start … start + k - 1`` with ``start = (width - k) // 2``.
    Growing k by one adds one direction, below and above in turn, so the sets are nested, and in
    the order they grow the first j entries of ``edge_band(width, k)`` are ``edge_band(width, j)``.
    """
    order: list[int] = []
    previous = width  # one past the start of the empty band
    for size in range(1, k + 1):
        start = (width - size) // 2
        order.append(start if start < previous else start + size - 1)
        previous = start
    return order


def band_indices(width: int, k: int, band: Band = "edge", seed: int = 0) -> list[int]:
    """Indices of the kept right singular vectors, singular values descending (0 is the largest).

    Args:
        width: d, the number of singular directions.
        k: How many are kept.
        band: A name, or the indices themselves (``k`` is then their number and not used).
            ``edge`` comes in nested order, the others in the order of the spectrum. ``mid`` keeps
            ``k // 2`` at each end, so an odd k keeps one less, as in the reference.
        seed: For ``random`` only.

    Raises:
        BandError: If the band is unknown, empty, or an index is out of range or there twice.
    """
    if not isinstance(band, str):
        indices = [int(index) for index in band]
        if not indices or len(set(indices)) != len(indices):
            raise BandError("a list of directions must name at least one, and none twice")
        if not all(0 <= index < width for index in indices):
            raise BandError(f"a direction's index must be from 0 to {width - 1}")
        return indices
    match band:
        case "edge":
            return edge_band(width, k)
        case "tail":
            return list(range(k))
        case "head":
            return list(range(width - k, width))
        case "mid":
            if k < 2:
                raise BandError("the mid band keeps k // 2 directions at each end: k must be 2 up")
            half = k // 2
            return [*range(half), *range(width - half, width)]
        case "random":
            chosen = np.random.default_rng(seed).permutation(width)[:k]
            return sorted(int(index) for index in chosen)
        case "auto":
            raise BandError(
                "the band auto is no choice of directions, it is made of embeddings: use "
                "build_model(..., band='auto') or FilterModule.from_sample"
            )
        case _:
            raise BandError(f"unknown band {band!r}: use one of {', '.join(BAND_NAMES)}")
