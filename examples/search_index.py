"""Search with a byte or a bit for each of an embedding's first numbers.

python examples/search_index.py ARTIFACT DIMENSIONS
"""

import sys

import faiss
from sentence_transformers import SentenceTransformer, quantize_embeddings

artifact, dimensions = sys.argv[1], int(sys.argv[2])
model = SentenceTransformer(artifact, truncate_dim=dimensions)
texts = ["A man is eating.", "The moon is full.", "A woman plays the guitar."]
vectors = model.encode(texts, normalize_embeddings=True)
query = model.encode(["Somebody has lunch."], normalize_embeddings=True)

# A byte a number.
eight_bits = faiss.ScalarQuantizer.QT_8bit
index = faiss.IndexScalarQuantizer(dimensions, eight_bits, faiss.METRIC_INNER_PRODUCT)
index.train(vectors)
index.add(vectors)
print("int8:  ", [texts[i] for i in index.search(query, 2)[1][0]])

# A bit a number: its sign, so first subtract the mean, which would decide many of the signs.
mean = vectors.mean(axis=0)
bits = quantize_embeddings(vectors - mean, precision="ubinary")
index = faiss.IndexBinaryFlat(8 * bits.shape[1])
index.add(bits)
bits_of_query = quantize_embeddings(query - mean, precision="ubinary")
print("binary:", [texts[i] for i in index.search(bits_of_query, 2)[1][0]])
