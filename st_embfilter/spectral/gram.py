"""The Gram matrix ``W_Uᵀ W_U``, summed over row blocks: in float32 where that is exact enough.

Two things make float32 products better than a float32 SVD of the whole matrix (measured in
docs/research/benchmarks.md):

* Only the products inside a block are float32. The blocks are added up in float64.
* A block's mean row is taken out before, and put back in float64. W_U's rows share a large mean
  (in most language models the largest singular direction), and the rounding of a product is in
  proportion to the largest direction in it.

Whether it was exact enough shows in the result (:meth:`CentredGram.resolves`); where it wasn't, the
blocks are gone over once more with :func:`float64_gram`.
"""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from st_embfilter.errors import CheckpointError, NonFiniteError
from st_embfilter.row_blocks import in_order

F = TypeVar("F", np.float32, np.float64)

# Below this width the products take no time, whatever their dtype.
NARROW = 256
# With s_c the largest singular value of the centred blocks, float32 products move a singular value
# s by about `eps · s_c² / (200 · s)`, and a float32 SVD of the whole matrix by 2 to 8 `eps · s_max`
# (seen on made and real matrices; tests/spectral/test_spectrum.py holds one against the other). At
# this ratio the former is a quarter of an `eps · s_max`.
LARGEST_AMPLIFICATION = 50
# What float32 drops of products that are too small for it is far below this.
UNDERFLOW = 1e-30
# So many columns of the triangle at a time: NumPy mirrors the triangle that it computes, which of a
# wide matrix takes an eighth of the time.
PANEL = 512


class CentredGram(NamedTuple):
    """``W_Uᵀ W_U`` from float32 products.

    Attributes:
        total: The Gram matrix, ``(d, d)`` float64: its lower triangle.
        means: Of each block, the mean that was taken out of its rows, ``(blocks, d)`` float64.
        shares: What goes with it: ``total`` is the centred Gram matrix and ``sharesᵀ means +
            meansᵀ shares``.
    """

    total: NDArray[np.float64]
    means: NDArray[np.float64]
    shares: NDArray[np.float64]

    def resolves(self, values: Tensor, vectors: Tensor) -> bool:
        """Whether the products were exact enough for the smallest direction.

        Args:
            values: The eigenvalues ``(d,)`` of ``total``, descending.
            vectors: Its eigenvectors as rows, ``(d, d)``.
        """
        largest = vectors[:8].numpy()
        of_means = 2 * ((largest @ self.shares.T) * (largest @ self.means.T)).sum(axis=1)
        spread = (values[:8].numpy() - of_means).max()
        bound = LARGEST_AMPLIFICATION * (values[0] * values[-1].clamp(min=0)).sqrt()
        return bool(spread <= bound) and float(values[-1]) > UNDERFLOW


class CentredBlock(NamedTuple):
    """What a block of rows adds to the Gram matrix.

    Attributes:
        product: Of the rows less their mean with themselves, ``(d, d)`` float32: its lower
            triangle.
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
    total = np.zeros((first.shape[1], first.shape[1]))
    counts, means, lefts = [], [], []
    tasks = (partial(_centred_block, block) for block in chain([first], upcoming))
    workers = os.cpu_count() or 1
    # A block for every core, and each on one thread: what isn't a product runs on one core alone,
    # and a product on all cores would wait for the one that reads the next block.
    with threadpool_limits(1, "blas"), np.errstate(over="ignore", invalid="ignore"):
        for block in in_order(tasks, workers, workers + 1):
            for panel, up_to in _lower_panels(total):
                total[panel, up_to] += block.product[panel, up_to]
            counts.append(block.rows)
            means.append(block.mean)
            lefts.append(block.left)
            del block  # The next needs its place.
    # The sum over blocks of (rest + 1 meanᵀ)ᵀ (rest + 1 meanᵀ) is that of restᵀ rest, and this:
    mean = np.array(means, np.float64)
    share = np.array(lefts, np.float64) + mean * np.array(counts)[:, None] / 2
    for panel, up_to in _lower_panels(total):
        total[panel, up_to] += share[:, panel].T @ mean[:, up_to]
        total[panel, up_to] += mean[:, panel].T @ share[:, up_to]
    # NaN, infinity and overflow in a column are on the diagonal too.
    return CentredGram(total, mean, share) if np.isfinite(total.diagonal()).all() else None


def _centred_block(block: Tensor) -> CentredBlock:
    rows = _to_float32(block)
    ones = np.ones(len(rows), np.float32)
    # Overflow is seen in the result. (A thread has settings of its own.)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = ones @ rows / np.float32(len(rows))
        # A block that is float32 already is the caller's.
        rest = np.subtract(rows, mean, out=None if block.dtype == torch.float32 else rows)
        return CentredBlock(_lower_product(rest), len(rows), mean, ones @ rest)


def _lower_panels(square: NDArray[Any]) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of panels that make up the lower triangle."""
    for start in range(0, len(square), PANEL):
        end = min(start + PANEL, len(square))
        yield slice(start, end), slice(0, end)


def _lower_product(rows: NDArray[F]) -> NDArray[F]:
    """The lower triangle of ``rowsᵀ rows``, ``(d, d)``; what is above it is undefined."""
    product = np.empty((rows.shape[1], rows.shape[1]), rows.dtype)
    for panel, _ in _lower_panels(product):
        before, columns = slice(0, panel.start), rows[:, panel]
        np.matmul(columns.T, rows[:, before], out=product[panel, before])
        # Of a matrix with itself NumPy computes a triangle only: half the multiplications.
        product[panel, panel] = columns.T @ columns
    return product


def _to_float32(block: Tensor) -> NDArray[np.float32]:
    """A block as float32, on one thread: PyTorch's own threads would wait for work on all cores."""
    if block.dtype == torch.bfloat16:
        # Its bits are the upper half of a float32's.
        halves = block.view(torch.int16).numpy().view(np.uint16)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    if block.dtype in (torch.float16, torch.float32):
        return block.numpy().astype(np.float32, copy=False)
    return block.to(torch.float32).numpy()


def float64_gram(blocks: Iterable[Tensor], device: str = "cpu") -> Tensor:
    """The Gram matrix from float64 products: its lower triangle, ``(d, d)`` on the device.

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
        if device == "cpu":
            product = torch.from_numpy(_lower_product(rows.numpy()))
        else:
            product = rows.T @ rows
        gram = product if gram is None else gram.add_(product)
        row += len(rows)
    if gram is None:
        raise CheckpointError("the unembedding matrix has no rows")
    return gram
