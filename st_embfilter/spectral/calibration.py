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

# To either side of a direction, as a share of all: one direction's energy is a matter of chance.
NEIGHBOURS = 1 / 72
# Of the mean variance of a direction. From 1/8 to 1/2 scores change by 0.8 at most
# (docs/research/auto.md).
NOISE = 1 / 4


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
        size: n, of how many embeddings.
    """

    mean: Floats
    variances: Floats
    directions: Floats
    size: int

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
    return Principal(mean, np.maximum(variances[::-1], 0), columns.T[::-1], len(sample))


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

    Two steps, both linear, and each a Wiener gain: signal by signal and noise.

    1. Every singular direction of W_U is weighted by its :func:`varying_share`. The noise is the
       average token; this is a soft cut in the place of EmbedFilter's two hard ones.
    2. What is left is whitened: its principal directions are taken, most energy first, and each is
       divided by the root of its energy ``λ``. Then it is weighted by ``λ / (λ + μ/4)`` with ``μ``
       the mean variance, as of weak directions a sample shows little but chance. The mean is among
       the directions, a loud one, and so is lessened and not removed: another corpus has another
       mean. For the same reason the energies are those of a covariance that is shrunk towards
       ``μ`` as far as so few texts demand (:func:`chance_share`).

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
    weights = varying_share(directions, principal)
    weighted = weights[:, None] * directions
    spread = weighted @ principal.directions.T * np.sqrt(principal.variances)
    covariance, mean = spread @ spread.T, weighted @ principal.mean
    energies, columns = np.linalg.eigh(covariance + np.outer(mean, mean))
    energies, rows = np.maximum(energies[::-1], 0), columns.T[::-1]
    typical, chance = np.trace(covariance) / len(rows), chance_share(covariance, principal.size)
    energies = (1 - chance) * energies + chance * typical
    gains = np.sqrt(energies) / (energies + NOISE * typical)
    matrix = gains[:, None] * (rows @ weighted)
    kept = ((matrix @ principal.directions.T) ** 2 @ principal.variances).sum()
    return matrix * np.sqrt(principal.variances.sum() / kept), weights


def chance_share(covariance: Floats, size: int) -> float:
    """How far a sample's covariance is to be shrunk towards a multiple of the identity, 0 to 1.

    The oracle approximating shrinkage of Chen, Wiesel, Eldar and Hero (2010), Equation 23.

    Args:
        covariance: ``(d, d)``.
        size: n, of how many embeddings.
    """
    width, total, squares = len(covariance), np.trace(covariance), float((covariance**2).sum())
    # Of a covariance that is a multiple of the identity already, nothing is left to shrink.
    apart = max(squares - total**2 / width, np.finfo(float).tiny)
    share = ((1 - 2 / width) * squares + total**2) / ((size + 1 - 2 / width) * apart)
    return float(min(1, share))


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
