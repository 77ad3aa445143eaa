"""What an embedding writes, against the whole matrix at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

from st_embfilter.spectral.lens import (
    direction_tokens,
    frequency_ranks,
    frequent_share,
    logit_lens,
    nearest_tokens,
)


def example(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """W_U with rows of all lengths, embeddings, and an orthonormal filter."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(200, 16, generator=generator) * torch.rand(200, 1, generator=generator)
    embeddings = torch.randn(3, 16, generator=generator)
    return w, embeddings, torch.linalg.qr(torch.randn(16, 5, generator=generator))[0].T


@given(st.integers(1, 210), st.integers(1, 200), st.booleans(), st.integers(0, 9))
def test_largest_logits(rows: int, top: int, filtered: bool, seed: int) -> None:
    w, embeddings, matrix = example(seed)
    found = logit_lens(embeddings, w.split(rows), top, matrix if filtered else None)
    logits = embeddings @ (matrix.T @ matrix if filtered else torch.eye(16)) @ w.T
    expected = logits.topk(top, dim=1)
    torch.testing.assert_close(found.logits, expected.values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits.gather(1, found.tokens), found.logits, atol=1e-5, rtol=1e-5)
    assert all(len(set(row)) == top for row in found.tokens.tolist())


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("filtered", [False, True])
def test_nearest_by_cosine(rows: int, filtered: bool) -> None:
    w, embeddings, matrix = example()
    found = nearest_tokens(embeddings, w.split(rows), 4, matrix if filtered else None)
    if filtered:
        w, embeddings = w @ matrix.T, embeddings @ matrix.T
    expected = cosine_similarity(embeddings[:, None], w[None], dim=2).topk(4, dim=1).indices
    assert torch.equal(found, expected)


def test_half_precision_rows_and_a_zero_row() -> None:
    w = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.1]]).bfloat16()
    assert nearest_tokens(torch.tensor([[3.0, 0.0]]), [w], 3).tolist() == [[1, 0, 2]]
    assert logit_lens(torch.tensor([[3.0, 0.0]]), [w], 2).logits.tolist() == [[3.0, 0.0]]


def test_directions_write_on_both_sides() -> None:
    w, _, matrix = example()
    along, against = direction_tokens(matrix, w.split(9), 6)
    written = matrix @ w.T
    assert torch.equal(along.tokens, written.topk(6, dim=1).indices)
    assert torch.equal(against.tokens, written.topk(6, dim=1, largest=False).indices)
    torch.testing.assert_close(against.logits, -written.gather(1, against.tokens))


def test_ranks_and_shares_of_frequent_tokens() -> None:
    ranks = frequency_ranks(torch.tensor([0.1, 0.4, 0.1, 0.3, 0.1]).log())
    assert ranks.tolist() == [3, 1, 4, 2, 5]
    tokens = torch.tensor([[1, 3], [0, 1], [4, 2]])
    assert frequent_share(tokens, ranks, 2).tolist() == [1.0, 0.5, 0.0]
    assert frequent_share(tokens, ranks, 3).tolist() == [1.0, 1.0, 0.0]
