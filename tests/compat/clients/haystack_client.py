"""Haystack's SentenceTransformers embedders, of documents and of a text."""

import os

import numpy as np
from client import main

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from haystack import Document
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)


def embed(name, texts, options):
    options = {"device": ComponentDevice.from_str("cpu"), "progress_bar": False, **options}
    documents = SentenceTransformersDocumentEmbedder(model=name, **options)
    text = SentenceTransformersTextEmbedder(model=name, **options)
    documents.warm_up()
    text.warm_up()
    embedded = documents.run([Document(content=content) for content in texts])["documents"]
    vectors = [document.embedding for document in embedded]
    assert np.allclose(text.run(texts[1])["embedding"], vectors[1], atol=1e-4)
    return vectors


main(embed)
