"""Logit Spectroscopy: what the singular directions of W_U carry, and what they do to the logits.

After Cancedda (2024), as arXiv 2606.07502 uses it (Section 3.2).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from st_embfilter.spectral.spectrum import Spectrum


class BandShift(NamedTuple):
    """What happens to the logits of some tokens when some directions are removed.

    Args:
        relative: Δπ, the sum of the changes' magnitudes, by the sum of the logits' magnitudes;
            the mean over embeddings.
        mean: The mean change, with its sign, over tokens and embeddings.
    """

    relative: float
    mean: float


def average_token(spectrum: Spectrum, blocks: Iterable[Tensor], log_p: Tensor) -> Tensor:
    """The embedding whose logits come closest to a token distribution: ``log(p̂) · W_U⁺``.

    The least-squares solution of ``W_U h = log p̂``; a head's bias is left out, as in the paper
    (Section 3.2). One pass over W_U gives ``W_Uᵀ log p̂``, the spectrum the rest:
    ``V S⁻² Vᵀ W_Uᵀ log p̂``.

    Args:
        spectrum: W_U's.
        blocks: W_U's row blocks, each ``(rows, d)`` of any float dtype.
        log_p: ``(V,)``, finite.

    Returns:
        ``(d,)`` float64.
    """
    values, vectors = spectrum.singular_values, spectrum.right_singular_vectors
    projected = torch.zeros(spectrum.width, dtype=torch.float64)
    first = 0
    for block in blocks:
        projected += block.double().T @ log_p[first : first + len(block)].double()
        first += len(block)
    # The spectrum is that of the Gram matrix: below this, a value is what rounding left of a zero.
    floor = values[0] * (spectrum.width * torch.finfo(torch.float64).eps) ** 0.5
    kept = values > floor
    return vectors[kept].T @ ((vectors[kept] @ projected) / values[kept] ** 2)


def gather_rows(blocks: Iterable[Tensor], tokens: Tensor) -> Tensor:
    """The rows of W_U of given tokens, ``(m, d)`` float32.

    Args:
        blocks: W_U's row blocks, each ``(rows, d)`` of any float dtype.
        tokens: ``(m,)`` ids.
    """
    found: dict[int, Tensor] = {}
    wanted = set(tokens.tolist())
    first = 0
    for block in blocks:
        for token in wanted.intersection(range(first, first + len(block))):
            # A view would hold on to the whole block.
            found[token] = block[token - first].to(torch.float32, copy=True)
        first += len(block)
    return torch.stack([found[token] for token in tokens.tolist()])


def energy(vectors: Tensor, spectrum: Spectrum) -> Tensor:
    """How the energy of vectors is spread over the singular directions.

    Args:
        vectors: ``(n, d)``. Of centred embeddings, energy is variance.
        spectrum: W_U's.

    Returns:
        ``(d,)`` float64: ``Σ (v_i · h)²`` over the vectors, for each direction; the sum is 1.
    """
    along = (vectors.double() @ spectrum.right_singular_vectors.T).square().sum(dim=0)
    return along / along.sum()


def logit_shift(embeddings: Tensor, rows: Tensor, spectrum: Spectrum) -> Tensor:
    """How much the logits of some tokens change when one singular direction is removed.

    ``Δπ(i) = Σ_j |w̃_j - w_j| / Σ_j |w_j|`` over the tokens, with ``w̃`` the logits of
    ``h (I - v_i v_iᵀ)``.

    Args:
        embeddings: ``(n, d)``.
        rows: The tokens' rows of W_U, ``(m, d)``.
        spectrum: W_U's.

    Returns:
        ``(d,)`` float64, for each direction the mean over the embeddings.
    """
    vectors = spectrum.right_singular_vectors
    states, tokens = embeddings.double(), rows.double()
    magnitudes = (states @ tokens.T).abs().sum(dim=1, keepdim=True)
    # Removing v_i changes w_j by -(h · v_i)(v_i · u_j), so no logits need to be computed again.
    writes = (tokens @ vectors.T).abs().sum(dim=0)
    return ((states @ vectors.T).abs() / magnitudes).mean(dim=0) * writes


def band_shift(embeddings: Tensor, rows: Tensor, directions: Tensor) -> BandShift:
    """What removing several directions at once does to the logits of some tokens.

    Args:
        embeddings: ``(n, d)``.
        rows: The tokens' rows of W_U, ``(m, d)``.
        directions: ``(b, d)``, orthonormal rows.
    """
    states, tokens, removed = embeddings.double(), rows.double(), directions.double()
    change = -(states @ removed.T) @ (tokens @ removed.T).T
    magnitudes = (states @ tokens.T).abs().sum(dim=1)
    relative = change.abs().sum(dim=1) / magnitudes
    return BandShift(float(relative.mean()), float(change.mean()))
