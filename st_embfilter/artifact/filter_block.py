"""A filter as one more block of a language model, for a runtime that reads no layer after pooling.

llama.cpp pools the last token's state after the model's final norm, and that is all. But a block in
front of that norm can carry the filter's map. Let x be the state that comes in, and n = x / rms(x)
what the block's norm, of weights 1, makes of it. Attention adds nothing: its output is 0. In the
gated feed-forward, rows 2i and 2i + 1 are a pair: their gates are ±c·u and both have row i of A
above, so that with act(z) = z·sigmoid(z) the pair adds up to

    act(z)·(A n)ᵢ + act(-z)·(A n)ᵢ = z·tanh(z / 2)·(A n)ᵢ,   z = c·(u·n),

one positive factor for all coordinates (with GELU z·erf(z / √2)). `down` writes them to the first k
numbers, so large that x itself is lost beside them, and the final norm has weights of 1 there and 0
beyond. With A = W·diag(g), g the model's own final norm, what comes out has the direction of the
filtered embedding, which is all that cosine asks for, and a tail of zeros.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import MisuseError

Floats = NDArray[np.floating]
# All of it is held in float16, which ends at 65,504, and so may be what goes through `down`: there
# a number is c·(u·n)·(A n)ᵢ, at most c·d.
LARGEST = 16_384.0
DOWN = 32_768.0
# Of |u·n| / |n|: below, the factor is small, and what came in isn't lost.
SMALLEST_SHARE = 0.05


class FilterBlock(NamedTuple):
    """The matrices that aren't 0, with f rows in the feed-forward, float32.

    Args:
        gate: ``(f, d)``.
        up: ``(f, d)``.
        down: ``(d, f)``.
        final_norm: ``(d,)``, instead of the model's own.
    """

    gate: Floats
    up: Floats
    down: Floats
    final_norm: Floats


def filter_block(
    matrix: Floats, final_norm: Floats, feed_forward: int, direction: Floats
) -> FilterBlock:
    """The block of a filter.

    Args:
        matrix: W, ``(k, d)``.
        final_norm: g, the weights of the model's final norm, ``(d,)``.
        feed_forward: f, how wide the model's feed-forward is.
        direction: u, of :func:`common_direction`.

    Raises:
        MisuseError: If there isn't room for k pairs.
    """
    k, width = matrix.shape
    if 2 * k > feed_forward:
        raise MisuseError(
            f"{k} dimensions need 2 × {k} rows in the model's feed-forward, which has "
            f"{feed_forward}: keep {feed_forward // 2} or fewer (--dims)"
        )
    rows = matrix.astype(np.float64) * final_norm
    rows /= np.linalg.norm(rows, 2)
    gate, up = (np.zeros((feed_forward, width), np.float32) for _ in range(2))
    gate[0 : 2 * k : 2] = LARGEST / width * direction
    gate[1 : 2 * k : 2] = -gate[0]
    up[0 : 2 * k : 2] = up[1 : 2 * k : 2] = rows
    down = np.zeros((width, feed_forward), np.float32)
    coordinates = np.arange(k)
    down[coordinates, 2 * coordinates] = down[coordinates, 2 * coordinates + 1] = DOWN
    return FilterBlock(gate, up, down, (np.arange(width) < k).astype(np.float32))


def common_direction(states: Floats) -> Floats:
    """u, which no state is at a right angle to: the mean direction.

    Args:
        states: Last tokens' states in front of the final norm, of a few hundred texts, ``(n, d)``.

    Returns:
        ``(d,)``, of length 1.

    Raises:
        MisuseError: If the states have no direction in common.
    """
    units = states / np.linalg.norm(states, axis=1, keepdims=True)
    mean = units.mean(axis=0)
    direction: Floats = mean / np.linalg.norm(mean)
    smallest = float(np.abs(units @ direction).min())
    if not smallest >= SMALLEST_SHARE:
        raise MisuseError(
            f"this model's embeddings have too little in common for a block to carry the filter "
            f"(the smallest share is {smallest:.3f}, and it takes {SMALLEST_SHARE})"
        )
    return direction
