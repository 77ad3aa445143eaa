"""LlamaIndex's HuggingFaceEmbedding."""

import numpy as np
from client import main
from llama_index.embeddings.huggingface import HuggingFaceEmbedding


def embed(name, texts, options):
    # Without the last argument it scales every vector to length 1.
    model = HuggingFaceEmbedding(model_name=name, device="cpu", normalize=False, **options)
    vectors = model.get_text_embedding_batch(texts)
    assert np.allclose(model.get_query_embedding(texts[1]), vectors[1], atol=1e-4)
    return vectors


main(embed)
