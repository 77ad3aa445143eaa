"""LangChain's HuggingFaceEmbeddings."""

import numpy as np
from client import main
from langchain_huggingface import HuggingFaceEmbeddings


def embed(name, texts, options):
    model = HuggingFaceEmbeddings(model_name=name, model_kwargs={"device": "cpu"}, **options)
    vectors = model.embed_documents(texts)
    assert np.allclose(model.embed_query(texts[1]), vectors[1], atol=1e-4)
    return vectors


main(embed)
