"""Which tokens an embedding writes, read through W_U (Logit Lens), and how frequent they are.

The logits of an embedding ``h`` are ``h W_Uᵀ``: what the language model would say next, if it
stopped at ``h`` (arXiv 2606.07502). A model that scales or soft-caps its logits orders
tokens just the same.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize


class TopTokens(NamedTuple):
    """The tokens of the largest logits, best first.

    Args:
        tokens: ``(n, top)`` int64.
        logits: ``(n, top)`` float32.
    """

    tokens: Tensor
    logits: Tensor


def logit_lens(
    embeddings: Tensor, blocks: Iterable[Tensor], top: int, matrix: Tensor | None = None
) -> TopTokens:
    """The tokens to which an embedding gives the largest logits.

    Args:
        embeddings: ``(n, d)``, unfiltered.
        blocks: W_U's row blocks, each ``(rows, d)`` of any float dtype. No more than one is held.
        top: How many tokens, at most V.
        matrix: A filter matrix ``M`` ``(k, d)``: the embeddings are read as it leaves them, put
            back into d dimensions, ``h Mᵀ M W_Uᵀ``.
    """
    states = embeddings.float()
    if matrix is not None:
        states = states @ matrix.T @ matrix
    logits = torch.empty((len(states), 0))
    tokens = torch.empty((len(states), 0), dtype=torch.long)
    first = 0
    for block in blocks:
        ids = torch.arange(first, first + len(block)).expand(len(states), -1)
        first += len(block)
        candidates = torch.cat([logits, states @ block.float().T], dim=1)
        logits, chosen = candidates.topk(min(top, first), dim=1)
        tokens = torch.cat([tokens, ids], dim=1).gather(1, chosen)
    return TopTokens(tokens, logits)


def nearest_tokens(
    embeddings: Tensor, blocks: Iterable[Tensor], top: int, matrix: Tensor | None = None
) -> Tensor:
    """The tokens whose rows of W_U have the largest cosine with an embedding, best first.

    Unlike a logit, a cosine doesn't depend on the length of a token's row, nor after a filter on
    how much of it is left.

    Args:
        embeddings: ``(n, d)``, unfiltered.
        blocks: W_U's row blocks, each ``(rows, d)``.
        top: How many tokens, at most V.
        matrix: A filter matrix ``(k, d)``: embeddings and rows are compared after it.

    Returns:
        Token ids, ``(n, top)``.
    """

    def direction(vectors: Tensor) -> Tensor:
        vectors = vectors.float()
        return normalize(vectors if matrix is None else vectors @ matrix.T, dim=1)

    return logit_lens(direction(embeddings), map(direction, blocks), top).tokens


def direction_tokens(
    directions: Tensor, blocks: Iterable[Tensor], top: int
) -> tuple[TopTokens, TopTokens]:
    """The tokens that directions write: whose logits grow most along each, and against it.

    Args:
        directions: ``(m, d)``, such as rows of right singular vectors.
        blocks: W_U's row blocks, each ``(rows, d)``.
        top: How many tokens, at most V.

    Returns:
        Along the directions and against them, ``(m, top)`` each. A singular vector's sign is free,
        so neither side is the right one.
    """
    both = logit_lens(torch.cat([directions, -directions]), blocks, top)
    along, against = zip(*(part.chunk(2) for part in both), strict=True)
    return TopTokens(*along), TopTokens(*against)


def frequency_ranks(log_p: Tensor) -> Tensor:
    """Each token's place in the order of their probabilities, 1 the most frequent.

    Args:
        log_p: ``(V,)``. Equal ones go in the order of their ids: in most vocabularies, frequent
            tokens have small ones.

    Returns:
        ``(V,)`` int64.
    """
    ranks = torch.empty(len(log_p), dtype=torch.long)
    ranks[log_p.argsort(descending=True, stable=True)] = torch.arange(1, len(log_p) + 1)
    return ranks


def frequent_share(tokens: Tensor, ranks: Tensor, most_frequent: int) -> Tensor:
    """The share of each embedding's top tokens that are among the most frequent ones.

    Args:
        tokens: ``(n, top)``, as of :func:`logit_lens`.
        ranks: ``(V,)``, of :func:`frequency_ranks`.
        most_frequent: How many tokens count as frequent.

    Returns:
        ``(n,)`` float32. By chance it is ``most_frequent / V``.
    """
    return (ranks[tokens] <= most_frequent).float().mean(dim=1)
