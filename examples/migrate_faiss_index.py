"""Filter a FAISS index of raw embeddings, and search it: no document is encoded again.

python examples/migrate_faiss_index.py ARTIFACT FOLDER
"""

import sys
from pathlib import Path

import faiss
from sentence_transformers import SentenceTransformer

from st_embfilter import VectorFilter, transform_file, without_filter

artifact, folder = sys.argv[1], Path(sys.argv[2])
documents = ["A man is eating.", "The moon is full.", "Prices rise again."]
model = SentenceTransformer(artifact)
raw_model = without_filter(model)

# What is there already: an index of the language model's own embeddings.
raw = raw_model.encode(documents, normalize_embeddings=True)
old = faiss.IndexFlatIP(raw.shape[1])
old.add(raw)
folder.mkdir(parents=True, exist_ok=True)
faiss.write_index(old, str(folder / "raw.faiss"))

# Vectors that were scaled to length 1 before the filter are scaled again after it.
done = transform_file(folder / "raw.faiss", artifact, folder / "filtered.faiss", normalize=True)
new = faiss.read_index(str(done.path))
print(f"{old.d} dimensions before, {new.d} after")

# Queries come from the artifact itself, or from the language model through the filter.
queries = model.encode(["Somebody has lunch."], normalize_embeddings=True)
print(documents[new.search(queries, 1)[1][0, 0]])
filtered = VectorFilter.from_artifact(artifact).apply(raw_model.encode(["Somebody has lunch."]))
faiss.normalize_L2(filtered)
print(documents[new.search(filtered, 1)[1][0, 0]])

# Where queries stay raw, FAISS can hold the filter, in front of the index.
matrix = VectorFilter.from_artifact(artifact).matrix
transform = faiss.LinearTransform(matrix.shape[1], matrix.shape[0], False)
faiss.copy_array_to_vector(matrix.ravel(), transform.A)
transform.is_trained = True
takes_raw = faiss.IndexPreTransform(transform, new)
queries = raw_model.encode(["Somebody has lunch."])
print(documents[takes_raw.search(queries, 1)[1][0, 0]])
