"""Small corpora in Parquet files, and what a filter makes of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from st_embfilter.cluster.tasks import Filtering
from st_embfilter.vectors.vector_filter import VectorFilter

ROWS, WIDTH = 100, 6
# Of the tiny model's embeddings.
WIDE = 48
FILTER = VectorFilter(np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32))
TASK = Filtering(FILTER, "vector", False)


def texts_table(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    texts = [f"text number {number}" + " and more" * (number % 7) for number in numbers]
    return pa.table({"id": pa.array(numbers), "text": texts, "tags": [["a", "b"]] * count})


def vectors_table(first: int, count: int, width: int = WIDTH) -> pa.Table:
    rows = np.random.default_rng(first).standard_normal((count, width)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
    return pa.table({"id": pa.array(range(first, first + count)), "vector": lists})


def save_corpus(folder: Path, make: Callable[[int, int], pa.Table]) -> Path:
    """Two files, one of them in a folder, with row groups of 16."""
    (folder / "lang=en").mkdir(parents=True)
    pq.write_table(make(0, 60), folder / "a.parquet", row_group_size=16)
    pq.write_table(
        make(60, ROWS - 60),
        folder / "lang=en" / "b.parquet",
        row_group_size=16,
        compression="zstd",
    )
    (folder / "_notes.parquet").write_text("no Parquet, and passed over by its name")
    return folder


def read(out: Path) -> pa.Table:
    """A whole output, in its files' order."""
    files = sorted(out.rglob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def files_of(folder: Path) -> dict[str, bytes]:
    """All files' contents, by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def floats(table: pa.Table, column: str = "vector") -> np.ndarray:
    return np.array(table.column(column).to_pylist(), np.float32)


EXPECTED = np.concatenate(
    [FILTER.apply(floats(vectors_table(*rows))) for rows in ((0, 60), (60, ROWS - 60))]
)
