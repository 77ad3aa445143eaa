"""The filter's matrix in an artifact's folder."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from st_embfilter.errors import CheckpointError, SourceNotFoundError
from st_embfilter.files import read_json
from st_embfilter.layout.manifest import Manifest
from st_embfilter.layout.names import DENSE_CONFIG, DENSE_WEIGHTS, PROVENANCE_FILE

# All that it takes to filter, and the only files that are fetched for it.
FILES = (PROVENANCE_FILE, DENSE_CONFIG, DENSE_WEIGHTS)


def read_matrix(folder: Path) -> NDArray[np.float32]:
    """The rows, ``(k, d)`` float32 if nothing else is wrong.

    Raises:
        OSError, SafetensorError: If the file is missing or corrupt, or holds another tensor.
        ValueError: If it is stored in another dtype.
    """
    with safe_open(folder / DENSE_WEIGHTS, framework="numpy") as file:
        dtype = file.get_slice("linear.weight").get_dtype()
        if dtype != "F32":
            raise ValueError(f"is stored as {dtype}, not float32")
        matrix: NDArray[np.float32] = file.get_tensor("linear.weight")
    return matrix


def read_filter(folder: Path, name: str) -> tuple[NDArray[np.float32], Manifest]:
    """The filter ``(k, d)``, which is finite, and the manifest.

    Args:
        folder: The artifact's.
        name: What the user named, for errors.

    Raises:
        SourceNotFoundError: If it is no artifact of this package.
        CheckpointError: If its filter is broken.
    """
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise SourceNotFoundError(
            f"{name} is not an artifact of st-embfilter: it has no {missing[0]}. "
            f"`st-embfilter build` makes one"
        )
    manifest = Manifest.read(folder)
    try:
        config = read_json(folder / DENSE_CONFIG)
        matrix = read_matrix(folder)
        linear = config["activation_function"].endswith(".Identity") and not config["bias"]
        if not linear or matrix.ndim != 2:
            raise ValueError("it is not a plain matrix")
        if not np.isfinite(matrix).all():
            raise ValueError("it holds NaN or infinity")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"the filter of {name} can't be read: {error}") from error
    return matrix, manifest
