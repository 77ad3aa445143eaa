"""How well embeddings find what belongs together. Each measure is a share of 1 for every item.

All are of cosines, so of embeddings' directions alone, and of their order, so that a filter that
spreads embeddings wider is no better for it.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def pair_shares(first: Floats, second: Floats) -> Floats:
    """How near each pair is among all pairs that don't belong together.

    As in STS, cosines are compared across texts: one scale serves all.

    Args:
        first: ``(n, d)``, each of length 1.
        second: What belongs to each, ``(n, d)``.

    Returns:
        ``(n,)``: with N others, of which m are nearer, ``log((N + 1) / (m + 1)) / log(N + 1)``. 1
        where none is nearer, 0 where all are.
    """
    count = len(first)
    rows = np.concatenate([first, second])
    left, right = np.triu_indices(2 * count, 1)
    apart = left % count != right % count
    others = np.sort((rows @ rows.T)[left[apart], right[apart]])
    nearer = len(others) - np.searchsorted(others, (first * second).sum(axis=1), side="right")
    shares: Floats = 1 - np.log(nearer + 1) / np.log(len(others) + 1)
    return shares


def reciprocal_ranks(queries: Floats, passages: Floats) -> Floats:
    """How high each query's own passage comes among all of them.

    Args:
        queries: ``(n, d)``, each of length 1.
        passages: ``(n, d)``, in the queries' order.

    Returns:
        ``(n,)``: 1 where its own is nearest, 1/2 where one other is nearer, and so on.
    """
    return _reciprocal(queries @ passages.T, np.arange(len(queries)))


def topic_ranks(texts: Floats, topics: Places) -> Floats:
    """How high each text's own topic comes, which is the mean of the topic's *other* texts.

    Args:
        texts: ``(n, d)``, each of length 1.
        topics: Each one's topic, as a number from 0, ``(n,)``; two texts each at least.

    Returns:
        ``(n,)``: 1 where its own topic is nearest, 1/2 where one other is nearer, and so on.
    """
    sums = np.zeros((topics.max() + 1, texts.shape[1]))
    np.add.at(sums, topics, texts)
    cosines = texts @ unit(sums).T
    cosines[np.arange(len(texts)), topics] = (texts * unit(sums[topics] - texts)).sum(axis=1)
    return _reciprocal(cosines, topics)


def _reciprocal(cosines: Floats, right: Places) -> Floats:
    """From cosines ``(n, m)`` and the right column of each row."""
    own = cosines[np.arange(len(cosines)), right]
    nearer = (cosines > own[:, None]).sum(axis=1)
    shares: Floats = 1.0 / (1 + nearer)
    return shares


def unit(rows: NDArray[np.floating]) -> Floats:
    """Rows scaled to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
