"""`verify --url` against a server that speaks as llama.cpp's. The real one is in `make compat`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import Pooling
from st_embfilter.artifact.server_check import check_server

pytestmark = pytest.mark.slow


@contextmanager
def llama_server(model: SentenceTransformer, *, one_file: bool, noise: float = 0) -> Iterator[str]:
    """It takes tokens, knows no prompt, and gives d numbers of length 1."""
    modules: Any = list(model)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({"data": [{"id": "model.gguf", "owned_by": "llamacpp"}]})

        def do_POST(self) -> None:
            (asked,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            ids = model.tokenizer(asked)["input_ids"] if isinstance(asked, str) else asked
            features = {"input_ids": torch.tensor([ids])}
            features["attention_mask"] = torch.ones_like(features["input_ids"])
            with torch.inference_mode():
                features = modules[1](modules[0](features))
                raw = features["sentence_embedding"].clone()
                kept = modules[2](features)["sentence_embedding"]
            vector = np.zeros(raw.shape[1])
            part = (kept if one_file else raw)[0].float().numpy()
            vector[: len(part)] = part / np.linalg.norm(part)
            spread = noise * np.random.default_rng(0).normal(size=len(part)) / len(part) ** 0.5
            vector[: len(part)] += spread
            self.reply({"data": [{"embedding": vector.tolist()}]})

        def reply(self, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


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
