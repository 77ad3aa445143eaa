"""sentence-transformers itself."""

from client import main
from sentence_transformers import SentenceTransformer


def embed(name, texts, options):
    model = SentenceTransformer(name, device="cpu", **options)
    return model.encode(texts).astype(float).tolist()


main(embed)
