"""The Gram matrix ``W_Uᵀ W_U``, summed over row blocks: in float32 where that is exact enough.

Two things make float32 products better than a float32 SVD of the whole matrix (measured in
docs/benchmarks.md):

* Only the products inside a block are float32. The blocks are added up in float64.
* A block's mean row is taken out before, and put back in float64. W_U's rows share a large mean
  (in most language models the largest singular direction), and the rounding of a product is in
  proportion to the largest direction in it.

Whether it was exact enough shows in the result (:meth:`CentredGram.resolves`); where it wasn't, the
blocks are gone over once more with :func:`float64_gram`.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from st_embfilter.errors import CheckpointError, NonFiniteError
from st_embfilter.row_blocks import in_order

# Below this width the products take no time, whatever their dtype.
NARROW = 256
# With s_c the largest singular value of the centred blocks, float32 products move a singular value
# s by about `eps · s_c² / (200 · s)`, and a float32 SVD of the whole matrix by 2 to 8 `eps · s_max`
# (seen on made and real matrices; tests/test_spectrum.py holds one against the other). At this
# ratio the former is a quarter of an `eps · s_max`.
LARGEST_AMPLIFICATION = 50
# What float32 drops of products that are too small for it is far below this.
UNDERFLOW = 1e-30


@dataclass(frozen=True, eq=False)
class CentredGram:
    """``W_Uᵀ W_U`` from float32 products, ``(d, d)`` float64.

    Attributes:
        total: The Gram matrix.
        centred: Its part without the blocks' means.
    """

    total: Tensor
    centred: Tensor

    def resolves(self, values: Tensor, vectors: Tensor) -> bool:
        """Whether the products were exact enough for the smallest direction.

        Args:
            values: The eigenvalues ``(d,)`` of ``total``, descending.
            vectors: Its eigenvectors as rows, ``(d, d)``.
        """
        largest = vectors[:8]
        spread = ((largest @ self.centred) * largest).sum(dim=1).max()
        bound = LARGEST_AMPLIFICATION * (values[0] * values[-1].clamp(min=0)).sqrt()
        return bool(spread <= bound) and float(values[-1]) > UNDERFLOW


class CentredBlock(NamedTuple):
    """What a block of rows adds to the Gram matrix.

    Attributes:
        product: Of the rows less their mean with themselves, ``(d, d)`` float32.
        rows: How many rows they are.
        mean: Their mean, ``(d,)`` float32.
        left: The sum of the rows less that mean, ``(d,)`` float32: what its rounding has left.
    """

    product: NDArray[np.float32]
    rows: int
    mean: NDArray[np.float32]
    left: NDArray[np.float32]


def float32_gram(blocks: Iterable[Tensor]) -> CentredGram | None:
    """The Gram matrix from float32 products, on the CPU.

    Args:
        blocks: Each ``(rows, d)`` of any float dtype.

    Returns:
        ``None`` where float64 is called for: narrow matrices, stored float64, NaN and infinity.
    """
    upcoming = iter(blocks)
    first = next(upcoming, None)
    if first is None or first.shape[1] < NARROW or first.dtype == torch.float64:
        return None
    centred = np.zeros((first.shape[1], first.shape[1]))
    counts, means, lefts = [], [], []
    tasks = (partial(centred_block, block) for block in chain([first], upcoming))
    # A block for every core, and each on one thread: what isn't a product runs on one core alone,
    # and a product on all cores would wait for the one that reads the next block.
    with threadpool_limits(1, "blas"), np.errstate(over="ignore", invalid="ignore"):
        workers = os.cpu_count() or 1
        for block in in_order(tasks, workers, workers + 1):
            np.add(centred, block.product, out=centred)
            counts.append(block.rows)
            means.append(block.mean)
            lefts.append(block.left)
    # The sum over blocks of (rest + 1 meanᵀ)ᵀ (rest + 1 meanᵀ) without restᵀ rest.
    mean, left = np.array(means, np.float64), np.array(lefts, np.float64)
    half = left.T @ mean + mean.T @ (mean * np.array(counts)[:, None]) / 2
    gram = centred + half
    gram += half.T
    if not np.isfinite(gram).all():
        return None
    return CentredGram(torch.from_numpy(gram), torch.from_numpy(centred))


def centred_block(block: Tensor) -> CentredBlock:
    """What a block adds to the Gram matrix."""
    rows = to_float32(block)
    ones = np.ones(len(rows), np.float32)
    # Overflow is seen in the result. (A thread has settings of its own.)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = ones @ rows / np.float32(len(rows))
        rest = rows - mean
        return CentredBlock(rest.T @ rest, len(rows), mean, ones @ rest)


def to_float32(block: Tensor) -> NDArray[np.float32]:
    """A block as float32, on one thread: PyTorch's own threads would wait for work on all cores."""
    if block.dtype == torch.bfloat16:
        # Its bits are the upper half of a float32's.
        halves = block.view(torch.int16).numpy().view(np.uint16)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    if block.dtype in (torch.float16, torch.float32):
        return block.numpy().astype(np.float32, copy=False)
    return block.to(torch.float32).numpy()


def float64_gram(blocks: Iterable[Tensor], device: str = "cpu") -> Tensor:
    """The Gram matrix from float64 products, ``(d, d)`` float64 on the device.

    Raises:
        NonFiniteError: If a block holds NaN or infinity.
        CheckpointError: If there are no blocks.
    """
    gram: Tensor | None = None
    row = 0
    for block in blocks:
        rows = block.to(device, torch.float64)
        # A sum is finite only if every entry is; no float32 row overflows a float64 sum.
        finite = rows.sum(dim=1).isfinite()
        if not finite.all():
            raise NonFiniteError(
                f"the unembedding matrix holds NaN or infinity, first in row "
                f"{row + int((~finite).nonzero()[0])}: the checkpoint is broken"
            )
        product = symmetric_product(rows)
        gram = product if gram is None else gram.add_(product)
        row += len(rows)
    if gram is None:
        raise CheckpointError("the unembedding matrix has no rows")
    return gram


def symmetric_product(rows: Tensor) -> Tensor:
    """``rowsᵀ rows``, ``(d, d)``."""
    if rows.device.type != "cpu":
        return rows.T @ rows
    # Of a matrix with itself, NumPy computes one triangle and mirrors it: half the multiplications.
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)
