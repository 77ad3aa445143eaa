"""How well embeddings find what belongs together. Each measure is a share of 1 for every item.

All are of cosines, so of embeddings' directions alone.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def reciprocal_ranks(embeddings: Floats, asked: Places, wanted: Places, among: Places) -> Floats:
    """How high the wanted one of some embeddings comes for each that asks.

    Args:
        embeddings: ``(n, d)``, each of length 1.
        asked: Rows of those that ask, ``(m,)``.
        wanted: The row that each is to find, ``(m,)``.
        among: The rows that it is found among. Its own row doesn't count.

    Returns:
        ``(m,)``: 1 where the wanted one is nearest, 1/2 where one is nearer, and so on.
    """
    cosines = embeddings[asked] @ embeddings[among].T
    right = np.einsum("ij,ij->i", embeddings[asked], embeddings[wanted])
    rival = (among != asked[:, None]) & (among != wanted[:, None])
    nearer: Floats = ((cosines > right[:, None]) & rival).sum(axis=1).astype(np.float64)
    return 1 / (1 + nearer)


def nearest_topic(embeddings: Floats, topics: Places) -> Floats:
    """Whether each text is nearest to its own topic, which is the mean of the topic's other texts.

    Args:
        embeddings: ``(n, d)``, each of length 1.
        topics: Each one's topic, as a number from 0, ``(n,)``; two texts each at least.

    Returns:
        ``(n,)``, 1 or 0.
    """
    rows = np.arange(len(topics))
    sums = np.zeros((topics.max() + 1, embeddings.shape[1]))
    np.add.at(sums, topics, embeddings)
    cosines = embeddings @ unit(sums).T
    others = unit(sums[topics] - embeddings)
    cosines[rows, topics] = np.einsum("ij,ij->i", embeddings, others)
    found: Floats = (cosines.argmax(axis=1) == topics).astype(np.float64)
    return found


def unit(rows: NDArray[np.floating]) -> Floats:
    """Rows scaled to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
