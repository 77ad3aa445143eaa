"""`verify --url` against a server that speaks as llama.cpp's. The real one is in `make compat`."""

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import Pooling
from st_embfilter.artifact.server_check import check_server
from support.llama_server import llama_server

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tiny_artifact: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_artifact), device="cpu")


@pytest.mark.parametrize("one_file", [True, False])
def test_right_server(one_file: bool, model: SentenceTransformer, tiny_artifact: Path) -> None:
    with llama_server(model, one_file=one_file, noise=0.1) as url:
        server, embeddings = check_server(tiny_artifact, url)
    assert embeddings.ok and "5 texts" in embeddings.detail
    said = "the first 24 numbers are the embedding" if one_file else "filter what it gives"
    assert said in server.detail and "Write the prompt yourself" in server.detail


def test_other_pooling(model: SentenceTransformer, tiny_artifact: Path) -> None:
    model[1] = Pooling(model[2].in_features, pooling_mode="mean")
    with llama_server(model, one_file=False) as url:
        embeddings = check_server(tiny_artifact, url)[1]
    assert not embeddings.ok
    assert "the filter is left out and the pooling is mean" in embeddings.detail


def test_another_model(model: SentenceTransformer, tiny_artifact: Path) -> None:
    with llama_server(model, one_file=True, noise=2) as url:
        embeddings = check_server(tiny_artifact, url)[1]
    assert not embeddings.ok and "not known how" in embeddings.detail
