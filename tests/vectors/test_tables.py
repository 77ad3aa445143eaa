"""`transform` of Parquet, Arrow IPC and Lance: the other columns stay, aligned with the vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import quantize_embeddings

from st_embfilter import transform_file
from st_embfilter.errors import NonFiniteError, OutputWriteError, VectorFileError, WidthError
from st_embfilter.job_state import JobState
from st_embfilter.vectors import job as filtered_rows
from st_embfilter.vectors.progress import Progress
from st_embfilter.vectors.vector_column import METADATA_KEY
from support.command_line import Run, fails
from support.vector_data import (
    KEPT,
    WIDTH,
    file_size_limit,
    make_filter,
    matrix_of,
    needs_todays_rounding,
    raw_vectors,
)

pa = pytest.importorskip("pyarrow")
lance = pytest.importorskip("lance")
pq = pytest.importorskip("pyarrow.parquet")
ROWS = 450
BAD = [5, 7, 300]
GOOD = [row for row in range(ROWS) if row not in BAD]
NAMES = ("raw.parquet", "raw.arrow", "stream.arrow", "raw.lance")
KINDS = [
    pa.list_(pa.float32(), WIDTH),
    pa.list_(pa.float64()),
    pa.large_list(pa.float16()),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered_rows, "BLOCK_ROWS", 100)
    monkeypatch.setattr(filtered_rows, "BLOCK_BYTES", 100)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_filter(tmp_path_factory.mktemp("filter") / "artifact")


def vectors() -> np.ndarray:
    raw = raw_vectors(ROWS)
    raw[5], raw[7], raw[300, 2] = 0, np.nan, np.inf
    return raw


def table(kind: "pa.DataType") -> "pa.Table":
    """Row 5 has no vector at all; texts are as long as their number."""
    raw = vectors().astype(kind.value_type.to_pandas_dtype())
    lists = pa.array([None if row == 5 else list(raw[row]) for row in range(ROWS)], type=kind)
    texts = pa.array(["x" * row for row in range(ROWS)]).dictionary_encode()
    fields = [pa.field("id", pa.int64()), pa.field("vector", kind, metadata={"of": "text"})]
    schema = pa.schema([*fields, pa.field("text", texts.type)], metadata={"made by": "a test"})
    return pa.table([pa.array(range(ROWS)), lists, texts], schema=schema)


def write(content: "pa.Table", path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=130, compression="zstd")
    elif path.suffix == ".lance":
        lance.write_dataset(content, path, max_rows_per_file=130)
    else:
        make = pa.ipc.new_stream if path.stem == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, make(file, content.schema) as writer:
            writer.write_table(content, max_chunksize=130)
    return path


def read(path: Path) -> "pa.Table":
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".lance":
        return lance.dataset(path).to_table()
    opened = pa.ipc.open_stream if path.stem.startswith("stream") else pa.ipc.open_file
    with pa.OSFile(str(path)) as file:
        return opened(file).read_all()


def output(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    return path.with_name(f"{path.stem}-out{path.suffix}")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_columns_stay_aligned(
    name: str, kind: "pa.DataType", artifact: Path, tmp_path: Path
) -> None:
    source, out = write(table(kind), tmp_path / name), output(tmp_path, name)
    done = transform_file(source, artifact, out, nan="drop")
    assert (done.rows, done.non_finite, done.first_non_finite) == (len(GOOD), 3, BAD)
    found, before = read(out), read(source)
    assert found.schema.names == before.schema.names
    for column in ("id", "text"):
        assert found.schema.field(column) == before.schema.field(column)
        assert found[column].to_pylist() == before[column].take(GOOD).to_pylist()
    field = found.schema.field("vector")
    assert field.metadata == before.schema.field("vector").metadata
    assert field.type.value_type == pa.float32()
    assert getattr(field.type, "list_size", KEPT) == KEPT
    raw = vectors().astype(kind.value_type.to_pandas_dtype())[GOOD].astype(np.float32)
    expected = raw @ matrix_of(artifact).T
    np.testing.assert_allclose(np.stack(found["vector"].to_numpy()), expected, atol=1e-5)
    assert found.schema.metadata[b"made by"] == b"a test"
    facts = json.loads(found.schema.metadata[METADATA_KEY.encode()])
    assert facts["sha256"] == "0" * 64 and facts["dimensions"] == KEPT
    assert facts["indices"] == list(range(KEPT))


@needs_todays_rounding
@pytest.mark.parametrize("name", NAMES)
def test_quantized_with_its_ranges(name: str, artifact: Path, tmp_path: Path) -> None:
    source, out = write(table(KINDS[0]), tmp_path / name), output(tmp_path, name)
    transform_file(source, artifact, out, nan="drop", dtype="int8", dims=6)
    found = read(out)
    facts = json.loads(found.schema.metadata[METADATA_KEY.encode()])
    ranges = np.array(facts["ranges"], np.float32)
    expected = vectors()[GOOD] @ matrix_of(artifact)[:6].T
    stored = np.stack(found["vector"].to_numpy())
    assert stored.dtype == np.int8
    # A step apart at most: the product is taken in blocks there, and at once here.
    wanted = quantize_embeddings(expected, "int8", ranges=ranges)
    assert np.abs(stored.astype(int) - wanted).max() <= 1 and (stored == wanted).mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_nulls_are_kept_as_nan(name: str, artifact: Path, tmp_path: Path) -> None:
    source, out = write(table(KINDS[1]), tmp_path / name), output(tmp_path, name)
    assert transform_file(source, artifact, out, nan="keep").rows == ROWS
    found = np.stack(read(out)["vector"].to_numpy())
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == BAD


@pytest.mark.parametrize("name", NAMES)
def test_only_vectors(name: str, artifact: Path, tmp_path: Path) -> None:
    source = write(table(KINDS[0]).select(["vector"]), tmp_path / name)
    done = transform_file(source, artifact, output(tmp_path, name), nan="drop")
    assert done.rows == len(GOOD) == len(read(output(tmp_path, name)))


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_where_it_was_stopped(
    name: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write(table(KINDS[1]), tmp_path / name), output(tmp_path, name)
    monkeypatch.setattr(filtered_rows, "CHECKPOINT_BYTES", 100)
    save = Progress.save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stopping(progress: Progress, state: JobState) -> None:
            save(progress, state)
            if progress.read >= 200:
                raise KeyboardInterrupt

        patch.setattr(Progress, "save", stopping)
        transform_file(source, artifact, out, nan="drop")
    assert not out.exists()
    left = json.loads((tmp_path / f".{out.name}.progress").read_text())["read"]
    assert 0 < left < ROWS
    transform_file(source, artifact, out, nan="drop")
    whole = out.with_stem(f"{out.stem}-whole")
    transform_file(source, artifact, whole, nan="drop")
    assert read(out).equals(read(whole), check_metadata=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_parquet_file_keeps_its_compression(artifact: Path, tmp_path: Path) -> None:
    source, out = write(table(KINDS[0]), tmp_path / "raw.parquet"), tmp_path / "out.parquet"
    transform_file(source, artifact, out, nan="drop")
    group = pq.ParquetFile(out).metadata.row_group(0)
    assert {group.column(i).compression for i in range(3)} == {"ZSTD"}


def test_which_column(run: Run, artifact: Path, tmp_path: Path) -> None:
    vector = pa.array(list(vectors()), type=KINDS[1])
    content = pa.table({"id": range(ROWS), "a": vector, "b": vector})
    source, out = write(content, tmp_path / "raw.parquet"), tmp_path / "out.parquet"
    command = ("transform", source, "--filter", artifact, "--out", out, "--nan", "drop")
    fails(run(*command), 2, "2 columns", "--column (a, b)")
    fails(run(*command, "--column", "c"), 2, "no column 'c'", "id (int64)", "a (list<")
    fails(run(*command, "--column", "id"), 2, "holds int64, not lists")
    assert run(*command, "--column", "b").returncode == 0
    assert len(read(out)["b"][0]) == KEPT and len(read(out)["a"][0]) == WIDTH
    write(content.select(["id"]), tmp_path / "ids.parquet")
    fails(
        run(command[0], tmp_path / "ids.parquet", *command[2:-3], out.with_stem("x")), 2, "no col"
    )


@pytest.mark.parametrize("name", NAMES)
def test_broken_tables(name: str, artifact: Path, tmp_path: Path) -> None:
    source = write(table(KINDS[0]), tmp_path / name)
    if source.is_dir():
        for part in source.glob("data/*"):
            part.write_bytes(part.read_bytes()[:100])
    else:
        source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(VectorFileError, match="can't be read"):
        transform_file(source, artifact, output(tmp_path, name))
    assert not output(tmp_path, name).exists()


def test_vectors_of_several_widths(artifact: Path, tmp_path: Path) -> None:
    rows = [[0.0] * WIDTH] * 140 + [[0.0] * 7]
    source = write(pa.table({"v": pa.array(rows, KINDS[1])}), tmp_path / "raw.parquet")
    with pytest.raises(WidthError, match="row 140 has 7 numbers, the first one 24"):
        transform_file(source, artifact, tmp_path / "out.parquet")
    empty = write(pa.table({"v": pa.array([], KINDS[1])}), tmp_path / "empty.parquet")
    with pytest.raises(VectorFileError, match="no vectors"):
        transform_file(empty, artifact, tmp_path / "out.parquet")


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, artifact: Path, tmp_path: Path) -> None:
    """The vectors fit, the table doesn't: its texts are longer."""
    out = output(tmp_path, name)
    long = table(KINDS[0]).set_column(2, "text", pa.array([str(i) * 999 for i in range(ROWS)]))
    rng = np.random.default_rng(0)
    noise = pa.array([rng.bytes(999) for _ in range(ROWS)])
    source = write(long.append_column("noise", noise), tmp_path / name)
    with file_size_limit(60_000), pytest.raises(OutputWriteError, match="could not be written"):
        transform_file(source, artifact, out, nan="drop")
    assert not out.exists() and (tmp_path / f".{out.name}.progress").exists()
    assert transform_file(source, artifact, out, nan="drop").rows == len(GOOD)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_list_is_a_missing_vector(name: str, artifact: Path, tmp_path: Path) -> None:
    """A failed embedding, the first one too."""
    raw = raw_vectors(9)
    lists = [[] if row in (0, 4) else list(raw[row]) for row in range(9)]
    content = pa.table({"id": range(9), "vector": pa.array(lists, pa.list_(pa.float32()))})
    source, out = write(content, tmp_path / name), output(tmp_path, name)
    with pytest.raises(NonFiniteError, match=r"2 of 9 rows .*: 0, 4"):
        transform_file(source, artifact, out)
    done = transform_file(source, artifact, out, nan="drop")
    assert (done.rows, done.first_non_finite) == (7, [0, 4])
    kept = [1, 2, 3, 5, 6, 7, 8]
    assert read(out)["id"].to_pylist() == kept
    expected = raw[kept] @ matrix_of(artifact).T
    np.testing.assert_allclose(np.stack(read(out)["vector"].to_numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["in.parquet", "in.arrow", "stream.arrow"])
def test_a_tensors_column_becomes_plain_lists(
    name: str, known: bool, artifact: Path, tmp_path: Path
) -> None:
    """Arrow's own type, and one that isn't known here, of which only the metadata tell."""
    raw = raw_vectors(9)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(raw.ravel()), WIDTH)
    if known:
        kind = pa.fixed_shape_tensor(pa.float32(), [WIDTH])
        content = pa.table({"vector": pa.ExtensionArray.from_storage(kind, lists)})
    else:
        told = {"ARROW:extension:name": "another.tensor", "of": "text"}
        told["ARROW:extension:metadata"] = f"[{WIDTH}]"
        schema = pa.schema([pa.field("vector", lists.type, metadata=told)])
        content = pa.table([lists], schema=schema)
    source, out = write(content, tmp_path / name), output(tmp_path, name)
    done = transform_file(source, artifact, out)
    assert "plain lists" in done.notes[-1]
    found = read(out)
    field = found.schema.field("vector")
    assert field.type.list_size == KEPT and set(field.metadata or ()) <= {b"of"}
    expected = raw @ matrix_of(artifact).T
    np.testing.assert_allclose(np.stack(found["vector"].to_numpy()), expected, atol=1e-5)
