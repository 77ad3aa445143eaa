"""A corpus of very many small files, some of which become one part; without Ray.

Here very many are more than four, and no more than three are joined.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.cluster import planning  # noqa: E402
from st_embfilter.cluster.output import Output  # noqa: E402
from st_embfilter.cluster.parts import Part  # noqa: E402
from st_embfilter.cluster.tasks import Encoding, Filtering  # noqa: E402
from st_embfilter.errors import (  # noqa: E402
    DataError,
    MisuseError,
    NonFiniteError,
    VectorFileError,
    WidthError,
)
from st_embfilter.stores import Place  # noqa: E402
from support.corpora import FILTER, TASK, WIDTH, floats, read, vectors_table  # noqa: E402

# Two files have no rows: such a one is nobody's error.
ROWS = {"a": 3, "b": 5, "c": 0, "d": 4, "deep/a": 2, "deep/b": 6, "e": 7, "f": 1, "g": 0}


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MOST_LOOKED_INTO", 4)
    monkeypatch.setattr(planning, "SAMPLE", 3)
    monkeypatch.setattr(planning, "JOINED_FILES", 3)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    folder, first = tmp_path / "in", 0
    (folder / "deep").mkdir(parents=True)
    for name, rows in ROWS.items():
        pq.write_table(vectors_table(first, rows), folder / f"{name}.parquet")
        first += rows
    return folder


def plan(folder: Path, task: Encoding | Filtering = TASK, most: int = 1000) -> list[Part]:
    return planning.cut(Place.of(folder), most, task.check, "job")


def make(parts: list[Part], out: Path, task: Encoding | Filtering = TASK) -> dict[str, Any]:
    output = Output(Place.of(out), "command")
    output.begin({})
    for part in parts:
        output.write(part, task.convert)
    return output.publish(parts, {})


def names(part: Part) -> list[str]:
    return [Path(file.path).stem for file in part.files]


@given(
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 9), st.integers(1, 9)), max_size=20)
)
def test_neighbours(given: list[tuple[str, int, int]]) -> None:
    files = {f"{folder}/{n:02}": (rows, size) for n, (folder, rows, size) in enumerate(given)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "JOINED_BYTES", 20)
        found = list(planning.neighbours(files, 12))
    assert [name for joined in found for name in joined] == list(files)
    for joined in found:
        assert len({name[0] for name in joined}) == 1 and len(joined) <= 3
        assert sum(files[name][0] for name in joined) <= 12
        assert sum(files[name][1] for name in joined) <= 20
    # None could have had the next one's first file as well.
    for one, two in pairwise(found):
        tried = [*one, two[0]]
        assert (
            len(one) == 3
            or one[0][0] != two[0][0]
            or sum(files[name][0] for name in tried) > 12
            or sum(files[name][1] for name in tried) > 20
        )


def test_all_rows_once_and_in_their_order(vectors: Path, tmp_path: Path) -> None:
    parts = plan(vectors)
    assert [names(part) for part in parts] == [
        ["a", "b", "c"],
        ["d"],
        ["a", "b"],
        ["e", "f", "g"],
    ]
    assert parts[2].name.startswith("deep/a-000000000000-")
    manifest = make(parts, tmp_path / "out")
    total = sum(ROWS.values())
    assert manifest["rows"] == total
    assert [part["rows"] for part in manifest["parts"]] == [8, 4, 8, 8]
    tables = [pq.read_table(tmp_path / "out" / part.name) for part in parts]
    found = pa.concat_tables(tables)
    assert found.column("id").to_pylist() == list(range(total))
    files = [vectors / f"{name}.parquet" for name, rows in ROWS.items() if rows]
    raw = np.concatenate([floats(pq.ParquetFile(file).read()) for file in files])
    np.testing.assert_array_equal(floats(found), FILTER.apply(raw))
    # A part is a row group, however many files it is from.
    assert {
        pq.read_metadata(file).num_row_groups for file in (tmp_path / "out").glob("*.parquet")
    } == {1}


def test_few_files_stay_apart(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MOST_LOOKED_INTO", len(ROWS))
    assert [names(part) for part in plan(vectors)] == [[name[-1]] for name in "abdabef"]


def test_part_rows_holds_for_files_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        pq.write_table(vectors_table(number, 100), tmp_path / "in" / f"{number:02}.parquet")
    # The rows of a byte are rounded up to a power of two: it is one file or two, and never three.
    for part in plan(tmp_path / "in", most=250):
        assert 1 <= len(part.files) <= 2


def test_a_large_file_between_small_ones_is_cut(vectors: Path, tmp_path: Path) -> None:
    large = vectors / "d.parquet"
    pq.write_table(vectors_table(100, 5000), large, row_group_size=1000)
    parts = plan(vectors, most=2000)
    cut = [part for part in parts if part.rows is not None]
    assert [(part.first, part.rows) for part in cut] == [(0, 2000), (2000, 2000), (4000, 1000)]
    assert {part.files[0].path for part in cut} == {str(large)}
    manifest = make(parts, tmp_path / "out")
    assert manifest["rows"] == sum(ROWS.values()) - ROWS["d"] + 5000
    large_ones = [id for id in read(tmp_path / "out").column("id").to_pylist() if id >= 100]
    assert sorted(large_ones) == list(range(100, 5100))


def test_only_parts_of_a_file_that_changed_are_made_again(vectors: Path) -> None:
    before = {part.name for part in plan(vectors)}
    assert before == {part.name for part in plan(vectors)}
    pq.write_table(vectors_table(500, ROWS["b"]), vectors / "b.parquet")
    after = plan(vectors)
    assert [part.name in before for part in after] == [False, True, True, True]


def test_a_file_that_changes_meanwhile(vectors: Path) -> None:
    part = plan(vectors)[0]
    pq.write_table(vectors_table(0, 20), vectors / "b.parquet")
    with pytest.raises(VectorFileError, match=r"b\.parquet has changed since the job began"):
        part.table()


def test_columns_as_a_reader_of_the_folder_has_them(vectors: Path, tmp_path: Path) -> None:
    table = vectors_table(0, 3)
    table = table.append_column("note", pa.nulls(3)).append_column("n", pa.array([1, 2, 3], "i4"))
    pq.write_table(table, vectors / "a.parquet")
    table = vectors_table(3, 5).append_column("note", pa.array(["x"] * 5))
    pq.write_table(table, vectors / "b.parquet")
    pq.write_table(vectors_table(8, 1).append_column("n", pa.array([4])), vectors / "c.parquet")
    part = plan(vectors)[0]
    make([part], tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / part.name)
    assert found.column("note").to_pylist() == [None] * 3 + ["x"] * 5 + [None]
    assert found.column("n").to_pylist() == [1, 2, 3, *[None] * 5, 4]
    pq.write_table(
        vectors_table(3, 5).append_column("n", pa.array(["x"] * 5)), vectors / "b.parquet"
    )
    with pytest.raises(VectorFileError, match=r"b\.parquet has other columns than .*a\.parquet"):
        make(plan(vectors), tmp_path / "another")


def test_errors_name_the_file_and_its_row(vectors: Path, tmp_path: Path) -> None:
    bad = vectors_table(0, 5)
    rows = bad.column("vector").to_pylist()
    rows[4][1] = float("nan")
    bad = bad.set_column(1, "vector", pa.array(rows, bad.schema.field("vector").type))
    pq.write_table(bad, vectors / "b.parquet")
    with pytest.raises(NonFiniteError, match=r"b\.parquet: the vector in row 4 \(from 0\)"):
        make(plan(vectors), tmp_path / "out")
    pq.write_table(vectors_table(0, 5, WIDTH + 1), vectors / "b.parquet")
    with pytest.raises(WidthError, match=r"3 files from .*a\.parquet on: .* row 3 has 7"):
        make(plan(vectors), tmp_path / "out")
    pq.write_table(pa.table({"id": [1]}), vectors / "b.parquet")
    with pytest.raises(NonFiniteError, match=r"b\.parquet: the vector in row 0 .* is null"):
        make(plan(vectors), tmp_path / "out")
    (vectors / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(VectorFileError, match=r"b\.parquet can't be read"):
        make(plan(vectors), tmp_path / "out")


def test_no_vectors_at_all(vectors: Path, tmp_path: Path) -> None:
    for file in vectors.rglob("*.parquet"):
        pq.write_table(pa.table({"other": [[1.5]]}), file)
    with pytest.raises(MisuseError, match="has no column 'vector'"):
        plan(vectors)


def test_texts(tiny_artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    texts = [[f"text {number} " + "and more " * (number % 5)] * (number % 3) for number in range(9)]
    for number, of_file in enumerate(texts):
        table = pa.table({"text": pa.array(of_file, pa.string())})
        pq.write_table(table, folder / f"{number}.parquet")
    task = Encoding(str(tiny_artifact), "", "text", None, False, None, 4, "cpu", "float32")
    manifest = make(plan(folder, task), tmp_path / "out", task)
    assert len(manifest["parts"]) == 3 and manifest["rows"] == 9
    found = read(tmp_path / "out")
    assert found.column("text").to_pylist() == [text for of_file in texts for text in of_file]
    expected = SentenceTransformer(str(tiny_artifact), device="cpu").encode(
        found.column("text").to_pylist()
    )
    np.testing.assert_allclose(floats(found, "embedding"), expected, atol=1e-5)
    pq.write_table(pa.table({"text": ["a", "b", None]}), folder / "4.parquet")
    with pytest.raises(DataError, match=r"row 2 \(from 0\) of .*4\.parquet has no text"):
        make(plan(folder, task), tmp_path / "another", task)


def test_texts_that_are_none(tiny_artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(9):
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / f"{number}.parquet")
    task = Encoding(str(tiny_artifact), "", "text", None, False, None, 4, "cpu", "float32")
    assert make(plan(folder, task), tmp_path / "out", task)["rows"] == 0
    assert "embedding" in read(tmp_path / "out").schema.names
