"""Filter a pgvector column of raw embeddings into a new column beside it, and search that.

    pip install "psycopg[binary]" pgvector
    python examples/pgvector_column.py ARTIFACT CONNECTION TABLE KEY OLD NEW QUERY

CONNECTION is a string as postgresql://me@localhost/mine, KEY the column of the primary key. OLD
stays as it is. NEW is of the type halfvec, of which an HNSW index takes 4,000 dimensions; of vector
it takes 2,000. After a stop, or when rows were added, the same command fills in what is null.
"""

import hashlib
import sys
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter import VectorFilter, without_filter

BATCH = 500
COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum)
    FROM pg_attribute WHERE attrelid = to_regclass(%s) AND NOT attisdropped"""
UNFILTERED = """
    SELECT {key}, {old} FROM {table} WHERE {new} IS NULL AND {further}
    ORDER BY {key} LIMIT %s FOR UPDATE"""

artifact, connection_string, table, key, old, new, query = sys.argv[1:]
vector_filter = VectorFilter.from_artifact(artifact)
d, k = vector_filter.width, vector_filter.dimensions
mark = hashlib.sha256(vector_filter.matrix).hexdigest()
names = {"table": table, "key": key, "old": old, "new": new, "index": f"{table}_{new}"}
parts: dict[str, Any] = {part: sql.Identifier(name) for part, name in names.items()}
parts |= {"k": k, "mark": mark, "further": sql.SQL("true")}


def execute(statement: str, *values: object) -> psycopg.Cursor[Any]:
    return connection.execute(sql.SQL(statement).format(**parts), values)


try:
    connection = psycopg.connect(connection_string, autocommit=True)
    register_vector(connection)
except psycopg.Error as error:
    sys.exit(str(error).splitlines()[0])
columns = {name: rest for name, *rest in execute(COLUMNS, parts["table"].as_string())}
for name in (key, old):
    if name not in columns:
        sys.exit(f"there is no table {table} with a column {name}")
if columns[old][0] not in (f"vector({d})", f"halfvec({d})"):
    sys.exit(f"{old} is {columns[old][0]}: the filter takes vector({d}) or halfvec({d})")
if new not in columns:
    with connection.transaction():
        execute("ALTER TABLE {table} ADD COLUMN {new} halfvec({k})")
        execute("COMMENT ON COLUMN {table}.{new} IS {mark}")
elif columns[new][1] != mark:
    sys.exit(f"{new} is there, and was not made with this filter: give another name")

(left,) = execute("SELECT count(*) FROM {table} WHERE {new} IS NULL").fetchone()
progress = tqdm(total=left, unit=" rows")
update = sql.SQL("UPDATE {table} SET {new} = %s WHERE {key} = %s").format(**parts)
while True:
    with connection.transaction():
        rows = execute(UNFILTERED, BATCH).fetchall()
        if not rows:
            break
        for row, vector in rows:
            if vector is None:
                sys.exit(f"{old} is null where {key} = {row}")
        filtered = vector_filter.apply(np.stack([vector.to_numpy() for _, vector in rows]))
        pairs = [(HalfVector(vector), row) for vector, (row, _) in zip(filtered, rows, strict=True)]
        connection.cursor().executemany(update, pairs)
    parts["further"] = sql.SQL("{} > {}").format(parts["key"], rows[-1][0])
    progress.update(len(rows))
progress.close()
# In a transaction of its own: of an index that was stopped nothing is left.
execute("CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw ({new} halfvec_cosine_ops)")

# Queries through the same filter; the artifact itself, with its last module, encodes them alike.
raw_query = without_filter(SentenceTransformer(artifact)).encode_query(query)
nearest = "SELECT {key}, {new} <=> %s AS distance FROM {table} ORDER BY distance LIMIT 3"
for row, distance in execute(nearest, HalfVector(vector_filter.apply(raw_query))):
    print(f"{1 - distance:.4f}", row)
connection.close()
