"""Transformations of embeddings that are fitted on a sample of them.

:func:`automatic_filter` is the band ``auto``: EmbedFilter's spectrum, weighted by what the sample
shows of it. The others are what a filter is compared with, each an :class:`Affine` made of a
sample's :func:`principal_directions`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import BandError, MisuseError

Floats = NDArray[np.floating]

# Chosen on STS12, STS14, STS16 and Banking77 with one model: the scores are flat around them
# (docs/research/auto.md).
NEIGHBOURS = 1 / 72
SHARPNESS = 2
MEAN_SHARE = 0.02
EQUALIZING = 1 / 3
# Of the mean eigenvalue. Below, a sample of a few hundred texts shows no more than chance.
FLOOR = 0.1


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


def varying_share(directions: Floats, principal: Principal) -> NDArray[np.float64]:
    """The share of embeddings' energy that tells texts apart, around each singular direction.

    The rest is the energy of their mean, which all texts have: the average token's. It lies at
    both ends of the spectrum. As a single direction's share is a matter of chance, energies are
    averaged over ``d / 72`` neighbours in the spectrum to either side.

    Args:
        directions: The right singular vectors of W_U ``(d, d)``, singular values descending.
        principal: The sample's.

    Returns:
        ``(d,)``, from 0 to 1.
    """
    rotated = principal.directions @ directions.T
    varying = _mean_of_neighbours(principal.variances @ rotated**2)
    return varying / (varying + _mean_of_neighbours((directions @ principal.mean) ** 2))


def _mean_of_neighbours(energies: Floats) -> Floats:
    reach = round(len(energies) * NEIGHBOURS)
    padded = np.pad(energies, reach, mode="edge")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


def automatic_filter(
    directions: Floats, principal: Principal
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The filter of the band ``auto``.

    Two steps, both linear. Every singular direction of W_U is weighted by the square of its
    :func:`varying_share`, a soft cut in the place of EmbedFilter's two hard ones. Then the
    principal directions of what is left are taken, most energy first, each divided by its energy
    to the power 1/3 (to 1/2 would be whitening). The mean counts with a fiftieth of its energy: it
    is lessened, not removed, as another corpus has another mean.

    Args:
        directions: The right singular vectors of W_U ``(d, d)``, singular values descending.
        principal: Of a sample of the model's embeddings, a few hundred at least.

    Returns:
        The matrix ``(d, d)``, of which the first k rows are the filter for k dimensions, and the
        weights of the singular directions ``(d,)``. Scaled to leave the sample's variance as it is.

    Raises:
        MisuseError: If the sample does not vary.
    """
    if principal.variances.sum() <= 0:
        raise MisuseError("all texts to calibrate on have the same embedding: give others")
    weights = varying_share(directions, principal) ** SHARPNESS
    weighted = weights[:, None] * directions
    spread = weighted @ principal.directions.T * np.sqrt(principal.variances)
    mean = weighted @ principal.mean
    energies, columns = np.linalg.eigh(spread @ spread.T + MEAN_SHARE * np.outer(mean, mean))
    energies, rows = np.maximum(energies[::-1], 0) + FLOOR * energies.mean(), columns.T[::-1]
    matrix = rows @ weighted / energies[:, None] ** EQUALIZING
    kept = ((matrix @ principal.directions.T) ** 2 @ principal.variances).sum()
    return matrix * np.sqrt(principal.variances.sum() / kept), weights


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
