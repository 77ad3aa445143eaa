"""Texts as tokens, and the batches in which they go through a backbone."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tokens:
    """A text's tokens, without padding.

    Attributes:
        ids: ``(tokens,)`` int64.
        pooled: ``(tokens,)`` int64, 1 for what the pooling is to see.
    """

    ids: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        """How many they are."""
        return len(self.ids)


def shared_length(rows: list[Tokens]) -> int:
    """How many tokens all texts have in front; of each, at least one remains."""
    limit = max(min(len(row) for row in rows) - 1, 0)
    first = rows[0].ids[:limit]
    same = torch.stack([row.ids[:limit] == first for row in rows]).all(dim=0)
    return limit if bool(same.all()) else int((~same).nonzero()[0])


def batches(
    order: list[int], rows: list[Tokens], length: int, tokens: int, spare: int | None
) -> list[list[int]]:
    """Cut an order, longest first, into batches of at most so many tokens behind the prefix.

    Args:
        order: Of the rows.
        rows: The texts.
        length: Of the prefix.
        tokens: With the padding.
        spare: How many of them may be padding; any number, if it is None.
    """
    cut: list[list[int]] = []
    longest = padding = 0
    for row in order:
        own = len(rows[row]) - length
        padding += longest - own
        full = not cut or longest * (len(cut[-1]) + 1) > tokens
        if full or (spare is not None and padding > spare):
            cut.append([])
            longest, padding = own, 0
        cut[-1].append(row)
    return cut


def padded(rows: list[Tensor]) -> Tensor:
    """Rows of several lengths as one matrix, filled with 0 on the right."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
