"""A server that speaks as llama.cpp's, on a model of sentence-transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from support.json_server import JsonHandler, serve_json


@contextmanager
def llama_server(model: SentenceTransformer, *, one_file: bool, noise: float = 0) -> Iterator[str]:
    """It takes tokens, knows no prompt, and gives d numbers of length 1."""
    modules: Any = list(model)
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    bare = partial(tokenizer.encode, add_special_tokens=False)

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self.reply({"data": [{"id": "model.gguf", "owned_by": "llamacpp"}]})

        def do_POST(self) -> None:
            inputs = self.read()["input"]
            rows = [{"index": i, "embedding": self.embed(one)} for i, one in enumerate(inputs)]
            self.reply({"data": rows[::-1]})

        def embed(self, text: str | list[int]) -> list[float]:
            ids = bare(text).ids if isinstance(text, str) else text
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
            return list(vector)

    with serve_json(Handler) as url:
        yield url
