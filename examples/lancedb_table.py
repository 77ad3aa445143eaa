"""Filter a LanceDB column of raw embeddings into a new column beside it, and search that.

    pip install lancedb pylance
    python examples/lancedb_table.py ARTIFACT DATABASE TABLE OLD NEW QUERY

DATABASE is a folder or an object store's address. OLD stays as it is, and NEW appears when all of
it is there: until then what was filtered is in a file of the current folder, with which the same
command goes on after a stop. Nothing else may write to the table meanwhile.
"""

import hashlib
import sys

import lance
import lancedb
import numpy as np
import pyarrow as pa
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter import VectorFilter, without_filter

BATCH = 500
artifact, place, name, old, new, query = sys.argv[1:]
vector_filter = VectorFilter.from_artifact(artifact)
mark = hashlib.sha256(vector_filter.matrix).hexdigest()
database = lancedb.connect(place)
try:
    dataset = database.open_table(name).to_lance()
except ValueError as error:
    sys.exit(f"{place}: {error}")
if old not in dataset.schema.names:
    sys.exit(f"{name} has no column {old}: its columns are {dataset.schema.names}")
kind = dataset.schema.field(old).type
if not pa.types.is_fixed_size_list(kind):
    sys.exit(f"{old} is {kind}: vectors are fixed_size_list<float>[{vector_filter.width}]")
vector_filter.apply(np.zeros(kind.list_size))  # Another width is an error before anything is done.

lists = pa.list_(pa.float32(), vector_filter.dimensions)


def filter_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    raw = batch[old].to_numpy(zero_copy_only=False)
    for row, vector in zip(batch["_rowid"], raw, strict=True):
        if vector is None or not np.isfinite(vector).all():
            raise ValueError(f"{old} is null, or holds NaN or infinity, where _rowid = {row}")
    values = pa.array(vector_filter.apply(np.stack(raw)).ravel())
    progress.update(len(batch))
    return pa.record_batch([pa.FixedSizeListArray.from_arrays(values, type=lists)], [new])


if new not in dataset.schema.names:
    # What was filtered is of use for this version of the table alone.
    checkpoint = f"{name}.{new}.{dataset.version}.{mark[:8]}.partial"
    schema = pa.schema([pa.field(new, lists, metadata={"filter": mark})])
    resumable = lance.batch_udf(schema, checkpoint)(filter_batch)
    with tqdm(total=dataset.count_rows(), unit=" rows") as progress:
        try:
            dataset.add_columns(resumable, read_columns=[old, "_rowid"], batch_size=BATCH)
        except OSError as error:  # What was raised above, in Lance's words.
            sys.exit(str(error).splitlines()[0])
elif (dataset.schema.field(new).metadata or {}).get(b"filter") != mark.encode():
    sys.exit(f"{new} is there, and was not made with this filter: give another name")

# Queries through the same filter; the artifact itself, with its last module, encodes them alike.
raw_query = without_filter(SentenceTransformer(artifact)).encode_query(query)
search = database.open_table(name).search(vector_filter.apply(raw_query), new)
hits = search.distance_type("cosine").limit(3).to_arrow()
for hit in hits.drop_columns([old, new]).to_pylist():
    print(f"{1 - hit.pop('_distance'):.4f}", hit)
