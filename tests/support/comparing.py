"""How far embeddings are from others."""

import numpy as np


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance between two rows (or two vectors), in lengths of the expected one."""
    distances = np.linalg.norm(found - expected, axis=-1)
    return float((distances / np.linalg.norm(expected, axis=-1)).max())
