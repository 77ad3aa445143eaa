"""Which tokens an embedding lies closest to, read through W_U."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def nearest_tokens(
    embeddings: Tensor, blocks: Iterable[Tensor], top: int, matrix: Tensor | None = None
) -> Tensor:
    """The tokens whose rows of W_U have the largest cosine with an embedding, best first.

    Args:
        embeddings: ``(n, d)``, unfiltered.
        blocks: W_U's row blocks, each ``(rows, d)``.
        top: How many tokens.
        matrix: A filter matrix ``(k, d)``: embeddings and rows are compared after it.

    Returns:
        Token ids, ``(n, top)``.
    """

    def direction(vectors: Tensor) -> Tensor:
        vectors = vectors.float()
        return normalize(vectors if matrix is None else vectors @ matrix.T, dim=1)

    directions = direction(embeddings)
    best = torch.full((len(embeddings), top), -torch.inf)
    tokens = torch.zeros((len(embeddings), top), dtype=torch.long)
    first = 0
    for block in blocks:
        ids = torch.arange(first, first + len(block)).expand(len(embeddings), -1)
        best, chosen = torch.cat([best, directions @ direction(block).T], dim=1).topk(top, dim=1)
        tokens = torch.cat([tokens, ids], dim=1).gather(1, chosen)
        first += len(block)
    return tokens
