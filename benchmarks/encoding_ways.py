"""Another way to embed, and how far embeddings are from others."""

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

BATCH = 32


def encode_as_reference(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Unsorted batches, and the filter applied to every token."""
    transformer, _, dense = model
    parts = []
    with torch.inference_mode():
        for first in range(0, len(texts), BATCH):
            features = transformer(model.preprocess(texts[first : first + BATCH]))
            filtered = dense.linear(features["token_embeddings"])
            last = features["attention_mask"].sum(dim=1) - 1
            parts.append(filtered[torch.arange(len(filtered)), last].float())
    return torch.cat(parts).numpy()


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest, in lengths of the expected embedding."""
    gaps = np.linalg.norm(found - expected, axis=1)
    return float((gaps / np.linalg.norm(expected, axis=1)).max())
