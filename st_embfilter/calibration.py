"""Transformations of embeddings that are fitted on a sample: what EmbedFilter is compared with.

Each takes a sample ``(n, d)`` and gives an :class:`Affine`. Unlike the filter, which is read from
the model's own weights, they need text, and their result depends on which.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import BandError, MisuseError

Floats = NDArray[np.floating]


class Affine(NamedTuple):
    """``x → (x - mean) matrixᵀ``.

    Args:
        mean: ``(d,)``.
        matrix: ``(k, d)``, or None for the identity.
    """

    mean: Floats
    matrix: Floats | None

    def apply(self, embeddings: Floats) -> NDArray[np.float32]:
        """Transform embeddings ``(n, d)``; the result is ``(n, k)``."""
        centred = embeddings - self.mean
        moved = centred if self.matrix is None else centred @ self.matrix.T
        return moved.astype(np.float32, copy=False)


def mean_removal(sample: Floats) -> Affine:
    """Subtract the sample's mean."""
    return Affine(sample.mean(axis=0, dtype=np.float64), None)


def all_but_the_top(sample: Floats, removed: int | None = None) -> Affine:
    """Subtract the mean, and the first principal directions (Mu and Viswanath, 2018).

    Args:
        sample: ``(n, d)``.
        removed: How many directions, by default ``d // 100`` as they recommend, at least one.
    """
    mean, _, directions = principal_directions(sample)
    top = directions[: removed or max(1, sample.shape[1] // 100)]
    return Affine(mean, np.eye(sample.shape[1]) - top.T @ top)


def pca(sample: Floats, k: int) -> Affine:
    """The first k principal components."""
    mean, _, directions = principal_directions(sample, k)
    return Affine(mean, directions[:k])


def whitening(sample: Floats, k: int) -> Affine:
    """The first k principal components, each scaled to variance 1 (Su et al., 2021, Whitening-k).

    Raises:
        MisuseError: If the sample spans fewer than k directions.
    """
    mean, variances, directions = principal_directions(sample, k)
    if variances[k - 1] <= variances[0] * np.finfo(np.float32).eps:
        raise MisuseError(
            f"the sample of {len(sample)} texts spans fewer than {k} directions: whitening to "
            f"{k} dimensions needs more or more varied text"
        )
    return Affine(mean, directions[:k] / np.sqrt(variances[:k, None]))


def principal_directions(sample: Floats, k: int = 1) -> tuple[Floats, Floats, Floats]:
    """Mean ``(d,)``, variances descending ``(d,)``, and directions as rows ``(d, d)``, in float64.

    Raises:
        BandError: If k is out of range.
    """
    width = sample.shape[1]
    if not 1 <= k <= width:
        raise BandError(f"the number of kept dimensions must be from 1 to {width}, not {k}")
    mean = sample.mean(axis=0, dtype=np.float64)
    centred = sample - mean
    variances, columns = np.linalg.eigh(centred.T @ centred / len(sample))
    return mean, np.maximum(variances[::-1], 0), columns.T[::-1]
