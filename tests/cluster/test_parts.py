"""A corpus cut into parts, and what a task makes of a part; without Ray."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.cluster.joined_table import JoinedTable  # noqa: E402
from st_embfilter.cluster.parts import MANIFEST, UNFINISHED, Part  # noqa: E402
from st_embfilter.cluster.planning import cut, row_ranges  # noqa: E402
from st_embfilter.cluster.tasks import Encoding, Filtering  # noqa: E402
from st_embfilter.errors import (  # noqa: E402
    DataError,
    MisuseError,
    NonFiniteError,
    StoreError,
    VectorFileError,
    WidthError,
)
from st_embfilter.stores import Place  # noqa: E402
from st_embfilter.vectors.parquet_file import ParquetTable  # noqa: E402
from support.corpora import FILTER, TASK, WIDTH, vectors_table  # noqa: E402


def parts_of(path: Path, most: int = 8, task: Encoding | Filtering = TASK) -> list[Part]:
    return cut(Place.of(path), most, task.check, "job")


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(1, 20))
def test_ranges_cover_each_row_once(groups: list[int], most: int) -> None:
    found = list(row_ranges(groups, most))
    rows = [row for first, count in found for row in range(first, first + count)]
    assert rows == list(range(sum(groups)))
    assert all(0 < count <= most for _, count in found)
    # A group that fits is never cut, unless a cut one's rest is in front of it.
    if all(rows <= most for rows in groups):
        starts = set(np.cumsum([0, *groups]).tolist())
        assert all(first in starts for first, _ in found)


def encoding(column: str = "text") -> Encoding:
    return Encoding("no-model", "", column, None, False, None, 4, "cpu", "auto")


def test_a_row_without_text(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c", None, "d"]}), path, row_group_size=2)
    part = parts_of(path, 2, encoding())[1]
    with pytest.raises(DataError, match=r"row 3 \(from 0\) of .*in\.parquet has no text"):
        encoding().convert(part.table(), part)


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"no": ["a"]}, MisuseError, "no column 'text', or several. Its columns are: no"),
        ({"text": [1]}, MisuseError, "holds int64, not texts"),
        ({"text": ["a"], "embedding": [1]}, MisuseError, "has a column 'embedding' already"),
        ({"text": pa.array([], pa.string())}, DataError, "holds no rows"),
    ],
)
def test_columns_of_texts(
    columns: dict[str, object], error: type[Exception], words: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    with pytest.raises(error, match=words):
        parts_of(tmp_path / "in.parquet", 8, encoding())


def first(path: Path) -> tuple[ParquetTable | JoinedTable, Part]:
    part = parts_of(path)[0]
    return part.table(), part


def test_columns_of_vectors(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(vectors_table(0, 5, WIDTH + 1), path)
    with pytest.raises(MisuseError, match="holds int64"):
        parts_of(path, 8, Filtering(FILTER, "id", False))
    with pytest.raises(WidthError, match="vectors of 7 numbers, and the filter takes 6"):
        TASK.convert(*first(path))
    pq.write_table(pa.table({"vector": pa.array([[1.0] * WIDTH, None])}), path)
    with pytest.raises(NonFiniteError, match=r"in\.parquet: the vector in row 1 .* is null"):
        TASK.convert(*first(path)).read_all()


def test_broken_files(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no such file or folder"):
        parts_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(MisuseError, match=r"holds no \.parquet file"):
        parts_of(tmp_path / "empty")
    (vectors / "a.parquet").write_bytes((vectors / "a.parquet").read_bytes()[:-20])
    with pytest.raises(VectorFileError, match="can't be read"):
        parts_of(vectors)


def test_names_say_what_parts_are_made_of(vectors: Path) -> None:
    before = parts_of(vectors, 32)
    assert [part.name[:-25] for part in before] == [
        *(f"a-{first:012d}" for first in (0, 32)),
        *(f"lang=en/b-{first:012d}" for first in (0, 32)),
    ]
    assert parts_of(vectors, 32) == before
    names = {part.name for part in before}
    # The same rows are the same part; not other ones from the same one on, nor another job's.
    assert names & {part.name for part in parts_of(vectors, 16)} == {before[-1].name}
    assert not names & {part.name for part in cut(Place.of(vectors), 32, TASK.check, "another")}
    pq.write_table(vectors_table(0, 60), vectors / "a.parquet", row_group_size=16)
    after = parts_of(vectors, 32)
    assert after[0] != before[0] and after[1] != before[1] and after[2:] == before[2:]


def test_a_file_that_changes_meanwhile(vectors: Path) -> None:
    part = parts_of(vectors)[0]
    pq.write_table(vectors_table(0, 20), vectors / "a.parquet")
    with pytest.raises(VectorFileError, match=r"a\.parquet has changed since the job began"):
        part.table()
    (vectors / "a.parquet").unlink()
    with pytest.raises(StoreError, match=r"a\.parquet is not there, or not any more"):
        part.table()


def test_an_output_that_is_not_whole_is_no_corpus(vectors: Path) -> None:
    folder = vectors / "lang=en"
    (folder / UNFINISHED).touch()
    with pytest.raises(DataError, match="lang=en is not whole"):
        parts_of(vectors)
    with pytest.raises(DataError, match="lang=en is not whole"):
        parts_of(folder)
    # A run that ended between its last two steps.
    (folder / MANIFEST).touch()
    assert parts_of(folder)
