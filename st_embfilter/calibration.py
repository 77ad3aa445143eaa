"""Transformations of embeddings that are fitted on a sample: what EmbedFilter is compared with.

A sample's :func:`principal_directions` give each of them, an :class:`Affine`. Unlike the filter,
which is read from the model's own weights, they need text, and their result depends on which.
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


class Principal(NamedTuple):
    """Mean and principal directions of a sample, in float64.

    Args:
        mean: ``(d,)``.
        variances: ``(d,)``, descending.
        directions: ``(d, d)``, a row each, in the variances' order.
    """

    mean: Floats
    variances: Floats
    directions: Floats

    def first(self, k: int) -> Floats:
        """The k directions of most variance ``(k, d)``.

        Raises:
            BandError: If k is out of range.
        """
        if not 1 <= k <= len(self.mean):
            raise BandError(
                f"the number of kept dimensions must be from 1 to {len(self.mean)}, not {k}"
            )
        return self.directions[:k]


def principal_directions(sample: Floats) -> Principal:
    """Of a sample of embeddings ``(n, d)``."""
    mean = sample.mean(axis=0, dtype=np.float64)
    centred = sample - mean
    variances, columns = np.linalg.eigh(centred.T @ centred / len(sample))
    return Principal(mean, np.maximum(variances[::-1], 0), columns.T[::-1])


def mean_removal(principal: Principal) -> Affine:
    """Subtract the sample's mean."""
    return Affine(principal.mean, None)


def all_but_the_top(principal: Principal, removed: int | None = None) -> Affine:
    """Subtract the mean, and the first principal directions (Mu and Viswanath, 2018).

    Args:
        principal: The sample's.
        removed: How many directions, by default ``d // 100`` as they recommend, at least one.
    """
    width = len(principal.mean)
    top = principal.first(removed or max(1, width // 100))
    return Affine(principal.mean, np.eye(width) - top.T @ top)


def pca(principal: Principal, k: int) -> Affine:
    """The first k principal components."""
    return Affine(principal.mean, principal.first(k))


def whitening(principal: Principal, k: int) -> Affine:
    """The first k principal components, each scaled to variance 1 (Su et al., 2021, Whitening-k).

    Raises:
        MisuseError: If the sample spans fewer than k directions.
    """
    kept, variances = principal.first(k), principal.variances
    # Below, a variance is no more than what rounding to float32 makes. Language models' outlier
    # dimensions leave many that are small, and real.
    if variances[k - 1] <= variances[0] * len(variances) * np.finfo(np.float32).eps ** 2:
        raise MisuseError(
            f"the sample spans fewer than {k} directions: whitening to {k} dimensions needs more "
            f"or more varied text"
        )
    return Affine(principal.mean, kept / np.sqrt(variances[:k, None]))
