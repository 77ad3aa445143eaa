"""The tokens nearest to an embedding, against the whole matrix at once."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from st_embfilter.lens import nearest_tokens


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("filtered", [False, True])
def test_nearest_by_cosine(rows: int, filtered: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(200, 16, generator=generator) * torch.rand(200, 1, generator=generator)
    embeddings = torch.randn(3, 16, generator=generator)
    matrix = torch.linalg.qr(torch.randn(16, 5, generator=generator))[0].T if filtered else None
    found = nearest_tokens(embeddings, w.split(rows), 4, matrix)
    if matrix is not None:
        w, embeddings = w @ matrix.T, embeddings @ matrix.T
    expected = cosine_similarity(embeddings[:, None], w[None], dim=2).topk(4, dim=1).indices
    assert torch.equal(found, expected)


def test_half_precision_rows_and_a_zero_row() -> None:
    w = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.1]]).bfloat16()
    assert nearest_tokens(torch.tensor([[3.0, 0.0]]), [w], 3).tolist() == [[1, 0, 2]]
