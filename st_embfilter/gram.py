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

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_embfilter.errors import CheckpointError, NonFiniteError

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
    """``W_Uᵀ W_U`` in two parts, each ``(d, d)`` float64.

    Attributes:
        centred: Of the rows less their block's mean, from float32 products.
        means: What the means add.
    """

    centred: Tensor
    means: Tensor

    def total(self) -> Tensor:
        """The Gram matrix."""
        return self.centred + self.means

    def resolves(self, values: Tensor, vectors: Tensor) -> bool:
        """Whether the products were exact enough for the smallest direction.

        Args:
            values: The eigenvalues ``(d,)`` of :meth:`total`, descending.
            vectors: Its eigenvectors as rows, ``(d, d)``.
        """
        largest = vectors[:8]
        spread = ((largest @ self.centred) * largest).sum(dim=1).max()
        bound = LARGEST_AMPLIFICATION * (values[0] * values[-1].clamp(min=0)).sqrt()
        return bool(spread <= bound) and float(values[-1]) > UNDERFLOW


def float32_gram(blocks: Iterable[Tensor]) -> CentredGram | None:
    """The Gram matrix from float32 products, on the CPU.

    Args:
        blocks: Each ``(rows, d)`` of any float dtype.

    Returns:
        ``None`` where float64 is called for: narrow matrices, stored float64, NaN and infinity.
    """
    total: NDArray[np.float64] | None = None
    counts, means, sums = [], [], []
    for block in blocks:
        width = block.shape[1]
        if width < NARROW or block.dtype == torch.float64:
            return None
        rows = block.to(torch.float32).numpy()
        ones = np.ones(len(rows), np.float32)
        mean = ones @ rows / np.float32(len(rows))
        rest = rows - mean
        with np.errstate(over="ignore", invalid="ignore"):  # Seen in the result.
            product = rest.T @ rest
        total = product.astype(np.float64) if total is None else np.add(total, product, out=total)
        counts.append(len(rows))
        means.append(mean)
        sums.append(ones @ rest)
    if total is None:
        return None
    # The sum over blocks of (rest + 1 meanᵀ)ᵀ (rest + 1 meanᵀ) without restᵀ rest. With `sums`, the
    # mean's own rounding cancels.
    mean, left = np.array(means, np.float64), np.array(sums, np.float64)
    half = left.T @ mean + mean.T @ (mean * np.array(counts)[:, None]) / 2
    gram = CentredGram(torch.from_numpy(total), torch.from_numpy(half + half.T))
    return gram if bool(gram.total().isfinite().all()) else None


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
