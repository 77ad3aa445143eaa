"""Another way to embed, how far embeddings are from others, and how much work they are."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import tokenize
from st_embfilter.encoding import prefix_encoder
from st_embfilter.encoding.batches import shared_length
from st_embfilter.encoding.loading import load_model
from st_embfilter.encoding.packed_weights import pack_weights
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.encoding.probes import relative_difference

BATCH = 32


def encode_as_reference(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Unsorted batches, and the filter applied to every token."""
    transformer, _, dense = model
    parts = []
    with torch.inference_mode():
        for first in range(0, len(texts), BATCH):
            features = transformer(tokenize(model, texts[first : first + BATCH]))
            filtered = dense.linear(features["token_embeddings"])
            last = features["attention_mask"].sum(dim=1) - 1
            parts.append(filtered[torch.arange(len(filtered)), last].float())
    return torch.cat(parts).numpy()


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest, in lengths of the expected embedding."""
    return relative_difference(torch.from_numpy(found), torch.from_numpy(expected))


def encoder_of(artifact: str | Path, dtype: torch.dtype) -> PrefixEncoder:
    """As `encode` has it on a processor."""
    model = load_model(artifact, device="cpu", dtype=dtype)
    pack_weights(model)
    return PrefixEncoder(model)


def encode_anew(encoder: PrefixEncoder, texts: list[str]) -> np.ndarray:
    """The prompt is computed anew for every text, all else is as before."""
    with patch.object(prefix_encoder, "shared_length", return_value=0):
        return encoder.encode(texts)


def count_tokens(encoder: PrefixEncoder, texts: list[str]) -> tuple[int, int]:
    """Of all texts with the default prompt; and of what is behind their shared tokens."""
    front = encoder.front(None)
    rows = encoder._tokenize([f"{front}{text}" for text in texts])
    tokens = sum(len(row) for row in rows)
    return tokens, tokens - shared_length(rows) * len(rows)


def operations_a_token(model: SentenceTransformer) -> int:
    """Of the backbone's matrices; attention itself comes on top, and is left out."""
    layers: Any = model[0].auto_model.layers
    return 2 * sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2)
