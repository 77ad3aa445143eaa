"""Filter a Qdrant collection of raw embeddings into a new one, and search that.

    pip install qdrant-client
    python examples/qdrant_collection.py ARTIFACT PLACE OLD NEW QUERY [VECTOR]

PLACE is a server's address, or a folder for the client alone. VECTOR is the vector's name, where it
has one. NEW gets the ids and payloads of OLD, which stays as it is. After a stop, or when points
were added, the same command filters the points that NEW doesn't hold.
"""

import hashlib
import sys

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException
from qdrant_client.models import Distance, PointStruct, VectorParams
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter import VectorFilter, without_filter

BATCH = 64
artifact, place, old, new, query = sys.argv[1:6]
name = sys.argv[6] if len(sys.argv) > 6 else ""
vector_filter = VectorFilter.from_artifact(artifact)
client = QdrantClient(url=place) if "://" in place else QdrantClient(path=place)
try:
    if not client.collection_exists(old):
        sys.exit(f"{place} has no collection {old}")
except ResponseHandlingException as error:
    sys.exit(f"{place} doesn't answer: {error}")
stored = client.get_collection(old).config.params.vectors
vectors = stored if isinstance(stored, dict) else {"": stored}
if name not in vectors:
    sys.exit(f"{old} has no vector {name!r}: its vectors are {sorted(vectors)}")
vector_filter.apply(np.zeros(vectors[name].size))  # Another width is an error before NEW is made.

mark = {"filter": hashlib.sha256(vector_filter.matrix).hexdigest()}
if not client.collection_exists(new):
    params = VectorParams(size=vector_filter.dimensions, distance=Distance.COSINE)
    client.create_collection(new, params, metadata=mark)
elif client.get_collection(new).config.metadata != mark:
    sys.exit(f"{new} is there, and was not made with this filter: give another name")

offset, progress = None, tqdm(total=client.count(old).count, unit=" points")
while True:
    page, offset = client.scroll(old, limit=BATCH, offset=offset, with_payload=False)
    ids = [point.id for point in page]
    there = {point.id for point in client.retrieve(new, ids, with_payload=False)}
    points = client.retrieve(old, [i for i in ids if i not in there], with_vectors=True)
    raw = [(point.vector or {}).get(name) if name else point.vector for point in points]
    for point, vector in zip(points, raw, strict=True):
        if not vector:
            sys.exit(f"point {point.id} of {old} has no vector {name!r}")
    if points:
        rows = zip(points, vector_filter.apply(raw).tolist(), strict=True)
        client.upsert(new, [PointStruct(id=p.id, vector=row, payload=p.payload) for p, row in rows])
    progress.update(len(page))
    if offset is None:
        break
progress.close()

# Queries through the same filter; the artifact itself, with its last module, encodes them alike.
raw_query = without_filter(SentenceTransformer(artifact)).encode_query(query)
for hit in client.query_points(new, vector_filter.apply(raw_query), limit=3).points:
    print(f"{hit.score:.4f}", hit.id, hit.payload)
client.close()
