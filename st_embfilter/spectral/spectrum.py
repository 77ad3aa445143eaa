"""The spectrum of the unembedding matrix: all singular values and right singular vectors of W_U.

``W_U = U S Vᵀ`` is tall (V × d, V ≫ d) and ``U`` is never needed, so nothing larger than d × d is
held: the Gram matrix ``W_Uᵀ W_U = V S² Vᵀ`` is summed over row blocks (gram.py), and its
eigenvectors are the right singular vectors. The squaring costs accuracy only beyond what a float32
SVD of the whole matrix would show, whose error in a direction is about ``6e-8 · s_max / gap``. Of
float64 products it is ``1e-16 · s_max² / (s · gap)``, below that wherever ``s > 1e-9 · s_max``;
float32 products are taken only where they are below it too.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from st_embfilter.errors import CheckpointError
from st_embfilter.files import atomic_output
from st_embfilter.spectral.gram import float32_gram, float64_gram


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All d singular values and right singular vectors of W_U.

    Attributes:
        singular_values: ``(d,)`` float64, descending.
        right_singular_vectors: ``(d, d)`` float64, orthonormal rows ``v_0 … v_{d-1}``. The sign of
            each is fixed by the rule that its entry of largest magnitude is positive.
        provenance: What the matrix was (source, revision, tensor, SHA-256 …), JSON values.
    """

    singular_values: Tensor
    right_singular_vectors: Tensor
    provenance: dict[str, Any]

    @property
    def width(self) -> int:
        """The width d of W_U."""
        return self.singular_values.shape[0]

    @classmethod
    def from_row_blocks(
        cls,
        blocks: Iterable[Tensor],
        provenance: dict[str, Any] | None = None,
        device: str = "cpu",
    ) -> "Spectrum":
        """Compute the spectrum from W_U's row blocks.

        Args:
            blocks: Each ``(rows, d)`` of any float dtype. They may be gone over twice: a matrix
                that float32 products can't resolve is then done in float64. An iterator, which
                can't be, is done in float64 at once.
            provenance: What the matrix was.
            device: Where to compute. Only the CPU takes float32 products.

        Raises:
            NonFiniteError: If W_U holds NaN or infinity.
            CheckpointError: If there are no blocks.
        """
        values, vectors = _eigenpairs(blocks, device)
        return cls(values.clamp(min=0).sqrt(), _fix_signs(vectors), provenance or {})

    def rows(self, indices: list[int]) -> Tensor:
        """The right singular vectors of the given indices, ``(len(indices), d)`` float32."""
        return self.right_singular_vectors[indices].to(torch.float32).contiguous()

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file. Appears whole or not at all; an existing file is kept.

        Raises:
            OutputExistsError: If ``path`` exists.
            OutputWriteError: If it can't be written.
        """
        with atomic_output(path) as partial:
            save_file(
                {
                    "singular_values": self.singular_values,
                    "right_singular_vectors": self.right_singular_vectors,
                },
                partial,
                metadata={"provenance": json.dumps(self.provenance)},
            )

    @classmethod
    def load(cls, path: str | Path) -> "Spectrum":
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: If the file is missing or isn't a saved spectrum.
        """
        try:
            with safe_open(path, framework="pt") as file:
                values = file.get_tensor("singular_values")
                vectors = file.get_tensor("right_singular_vectors")
                provenance = json.loads(file.metadata()["provenance"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a saved spectrum: {error}") from error
        if values.ndim != 1 or vectors.shape != (len(values), len(values)):
            raise CheckpointError(f"{path} is not a saved spectrum: its shapes don't fit together")
        return cls(values, vectors, provenance)


def _eigenpairs(blocks: Iterable[Tensor], device: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(d,)`` of ``W_Uᵀ W_U``, descending, and eigenvectors as rows, on the CPU."""
    if device != "cpu":
        ascending, columns = torch.linalg.eigh(float64_gram(blocks, device))
        return ascending.flip(0).cpu(), columns.T.flip(0).contiguous().cpu()
    gram = None if iter(blocks) is blocks else float32_gram(blocks)
    if gram is not None:
        pairs = eigh_descending(gram.total)
        if gram.resolves(*pairs):
            return pairs
    return eigh_descending(float64_gram(blocks).numpy())


def eigh_descending(lower: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(d,)`` of a symmetric matrix, descending, and eigenvectors as rows.

    Args:
        lower: Its lower triangle, ``(d, d)`` float64. It is overwritten.
    """
    # LAPACK's rows are NumPy's columns, so that no copy has to be made.
    values, columns = scipy.linalg.eigh(
        lower.T, lower=False, overwrite_a=True, check_finite=False, driver="evd"
    )
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(columns.T[::-1].copy())


def _fix_signs(vectors: Tensor) -> Tensor:
    """Turn each row so that its entry of largest magnitude is positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -vectors, vectors)
