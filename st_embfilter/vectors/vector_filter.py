"""The filter for vectors that are there already: it is linear, so no text is encoded again.

Loads neither a language model nor sentence-transformers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_embfilter.errors import BandError, MisuseError, WidthError
from st_embfilter.hub.download import artifact_folder
from st_embfilter.layout.filter_matrix import FILES, read_filter
from st_embfilter.spectral.bands import NESTED, kept_dimensions

# As torch.nn.functional.normalize: a vector of zeros stays one.
SMALLEST_LENGTH = np.float32(1e-12)


class VectorFilter:
    """An artifact's filter, for raw embeddings: those of its pipeline without the last module.

    Args:
        matrix: The filter's rows ``(k, d)``, float32.
        provenance: Where it is from, JSON values.
    """

    def __init__(
        self, matrix: NDArray[np.float32], provenance: Mapping[str, Any] | None = None
    ) -> None:
        self.matrix = matrix
        self.provenance = dict(provenance or {})

    @classmethod
    def from_artifact(cls, path: str | Path, dims: int | None = None) -> "VectorFilter":
        """Read the filter of an artifact, and nothing else of it.

        Args:
            path: A folder, or ``org/name`` or ``org/name@revision`` on the hub, of which only the
                filter's files are fetched.
            dims: Keep the first so many dimensions: a larger τ.

        Raises:
            SourceNotFoundError: If it isn't there, or is no artifact of this package.
            CheckpointError: If its filter is broken.
            BandError: If it can't give ``dims`` dimensions.
        """
        matrix, manifest = read_filter(artifact_folder(path, FILES), str(path))
        k, width = matrix.shape
        kept = k if dims is None else kept_dimensions(k, k=dims)
        if kept < k and manifest.band not in NESTED:
            raise BandError(
                f"{path} keeps the {manifest.band} band, of which the first {kept} dimensions are "
                f"no band: it gives {k}, and no other number"
            )
        provenance = {
            "source": manifest.source,
            "revision": manifest.revision,
            "tensor": manifest.tensor,
            "sha256": manifest.sha256,
            "band": manifest.band,
            # The band auto weights directions, and lists none.
            "indices": manifest.indices and manifest.indices[:kept],
            "width": width,
            "dimensions": kept,
        }
        return cls(np.ascontiguousarray(matrix[:kept]), provenance)

    @property
    def width(self) -> int:
        """d, the width of the vectors it takes."""
        return int(self.matrix.shape[1])

    @property
    def dimensions(self) -> int:
        """k, the width of the vectors it gives."""
        return int(self.matrix.shape[0])

    def apply(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """Filter vectors: a batch of an index, or queries on the fly.

        Args:
            vectors: ``(n, d)`` or ``(d,)``, floats, or a tensor. A row with NaN gives a row of NaN.

        Returns:
            ``(n, k)`` or ``(k,)``, float32.

        Raises:
            WidthError: If they are of another width.
        """
        if hasattr(vectors, "detach"):  # NumPy knows neither bfloat16 nor other devices.
            vectors = vectors.detach().float().cpu().numpy()
        # Beyond float32's range is infinity, which the caller sees.
        with np.errstate(over="ignore"):
            rows = np.asarray(vectors).astype(np.float32, copy=False)
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.width:
            raise WidthError(
                f"the filter takes vectors of {self.width} numbers, (n, {self.width}), not an "
                f"array of shape {rows.shape}"
            )
        with np.errstate(invalid="ignore"):
            filtered: NDArray[np.float32] = rows @ self.matrix.T
        return filtered


def as_filter(vector_filter: VectorFilter | str | Path, dims: int | None) -> VectorFilter:
    """A filter that is at hand, or an artifact's; see :meth:`VectorFilter.from_artifact`.

    Raises:
        MisuseError: If one at hand is to give another number of dimensions.
    """
    if not isinstance(vector_filter, VectorFilter):
        return VectorFilter.from_artifact(vector_filter, dims)
    if dims is not None:
        raise MisuseError("dims goes with an artifact: VectorFilter.from_artifact takes it too")
    return vector_filter


def normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors ``(n, k)`` scaled to length 1, in their place."""
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST_LENGTH)
    return rows
