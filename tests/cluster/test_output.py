"""A folder of parts: each whole or not there, none of another job's; without Ray."""

import json
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.cluster.output import Output  # noqa: E402
from st_embfilter.cluster.parts import MANIFEST, UNFINISHED, Part  # noqa: E402
from st_embfilter.cluster.planning import cut  # noqa: E402
from st_embfilter.errors import (  # noqa: E402
    ClusterError,
    DataError,
    OutputExistsError,
    OutputWriteError,
    VectorFileError,
)
from st_embfilter.stores import Place  # noqa: E402
from st_embfilter.vectors.parquet_file import ParquetTable  # noqa: E402
from support.corpora import ROWS, TASK, vectors_table  # noqa: E402


@pytest.fixture(params=["disk", "s3", "gs"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The output, on a disk and in object stores: they go one way."""
    if request.param == "disk":
        return Place.of(tmp_path / "out")
    if request.param == "gs":
        return Place.of(request.getfixturevalue("gcs").uri("out"))
    request.getfixturevalue("s3")
    return Place.of("s3://bucket/out")


def contents(out: Place) -> dict[str, bytes | None]:
    return {name: out.inside(name).read() for name in out.files()}


def begin(source: Path, out: Place, command: str = "command") -> tuple[Output, list[Part]]:
    output = Output(out, command)
    output.left()
    output.begin(TASK.facts())
    return output, cut(Place.of(source), 16, TASK.check, command)


def test_whole_when_the_manifest_is_there(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)
    for part in parts:
        assert UNFINISHED in out.files() and MANIFEST not in out.files()
        output.write(part, TASK.convert)
    manifest = output.publish(parts, {"source": "here"})
    assert set(out.files()) == {MANIFEST, *(part.name for part in parts)}
    assert json.loads(out.inside(MANIFEST).read() or b"") == manifest
    assert manifest["rows"] == ROWS and manifest["source"] == "here"
    rows = [pq.read_table(out.inside(part.name).open()) for part in parts]
    assert pa.concat_tables(rows).column("id").to_pylist() == list(range(ROWS))
    with pytest.raises(OutputExistsError, match="already exists, and is whole"):
        Output(out, "command").left()


def test_goes_on_where_it_was(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)
    output.write(parts[0], TASK.convert)
    again = Output(out, "command")
    assert again.left() == {parts[0].name}

    def never(*_: object) -> "pa.RecordBatchReader":
        raise AssertionError("it is there")

    again.write(parts[0], never)


def test_a_part_written_twice_is_there_once(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)
    # Two workers that don't know of each other: the second is in time to find nothing.
    late = []

    def convert(table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
        if not late:
            late.append(part)
            output.write(part, TASK.convert)
        return TASK.convert(table, part)

    for part in parts:
        output.write(part, convert)
    manifest = output.publish(parts, {})
    rows = [pq.read_table(out.inside(part.name).open()) for part in parts]
    assert pa.concat_tables(rows).column("id").to_pylist() == list(range(ROWS))
    assert manifest["rows"] == ROWS


def test_two_runs_of_one_command(vectors: Path, out: Place) -> None:
    first, parts = begin(vectors, out)
    second, _ = begin(vectors, out)

    def convert(table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
        # The first ends in the middle of the second's last part, and clears up.
        rows = TASK.convert(table, part)
        for each in parts:
            first.write(each, TASK.convert)
        first.publish(parts, {})
        return rows

    second.write(parts[-1], convert)
    before = contents(out)
    second.publish(parts, {})
    assert contents(out) == before and set(before) == {MANIFEST, *(part.name for part in parts)}


def test_an_error_leaves_no_part(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)

    def convert(table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
        def batches() -> "object":
            whole = TASK.convert(table, part)
            yield whole.read_next_batch()
            raise DataError("in the middle")

        schema = TASK.convert(table, part).schema
        return pa.RecordBatchReader.from_batches(schema, batches())

    with pytest.raises(DataError, match="in the middle"):
        output.write(parts[0], convert)
    assert set(out.files()) == {UNFINISHED}


def test_an_input_that_is_written_to_meanwhile(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)

    def convert(table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
        rows = TASK.convert(table, part).read_all()
        pq.write_table(vectors_table(0, 60), vectors / "a.parquet")
        return rows.to_reader()

    with pytest.raises(VectorFileError, match=r"a\.parquet has changed since the job began"):
        output.write(parts[0], convert)
    assert set(out.files()) == {UNFINISHED}


def test_another_commands_parts_are_refused(vectors: Path, out: Place) -> None:
    other, parts = begin(vectors, out, "another")
    # Nothing is lost yet: a command with a wrong option, say.
    mine, _ = begin(vectors, out)
    with pytest.raises(ClusterError, match="taken it for another command"):
        other.write(parts[0], TASK.convert)
    assert set(out.files()) == {UNFINISHED}
    mine.write(parts[0], TASK.convert)
    with pytest.raises(OutputExistsError, match="1 parts of what another command makes there"):
        Output(out, "another").left()


def test_parts_of_an_input_that_was_another_are_deleted(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)
    output.write(parts[0], TASK.convert)
    out.inside("lang=en/.left-by-a-killed-worker.partial").write(b"PAR1")
    (vectors / "a.parquet").touch()
    output, parts = begin(vectors, out)
    assert not output.left() & {part.name for part in parts}
    for part in parts:
        output.write(part, TASK.convert)
    output.publish(parts, {})
    assert set(out.files()) == {MANIFEST, *(part.name for part in parts)}


@pytest.mark.parametrize(
    "name", ["notes.txt", "part-0.parquet", "a-000000000000-0123456789abcdef.parquet"]
)
def test_what_else_is_there_is_refused(name: str, out: Place) -> None:
    assert Output(out, "command").left() == set()
    out.inside(f"deep/{name}").write(b"PAR1")
    with pytest.raises(OutputExistsError, match=f"already exists, with deep/{name} in it"):
        Output(out, "command").left()
    with pytest.raises(OutputExistsError, match="already exists"):
        Output(out.inside(f"deep/{name}"), "command").left()


def test_parts_on_another_machines_disk(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)
    output.write(parts[0], TASK.convert)
    with pytest.raises(OutputWriteError, match=r"6 of 7 parts are not here.*must share"):
        output.publish(parts, {})


def test_taken_at_the_end(vectors: Path, out: Place) -> None:
    output, parts = begin(vectors, out)
    for part in parts:
        output.write(part, TASK.convert)
    Output(out, "another").begin({})
    with pytest.raises(OutputExistsError, match="taken it for another command"):
        output.publish(parts, {})
    assert MANIFEST not in out.files()
