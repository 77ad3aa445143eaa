"""A corpus encoded and filtered by Ray's workers: each row once, whatever happens to a worker.

One Ray of two CPUs for all tests; what needs none of it calls the same functions here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from support.command_line import Run, fails

pa = pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.cluster import run as ray_data  # noqa: E402
from st_embfilter.cluster.output import MANIFEST, TRIES, Output  # noqa: E402
from st_embfilter.cluster.parts import Part, cut, row_ranges  # noqa: E402
from st_embfilter.cluster.run import Workers, encode_corpus, transform_corpus  # noqa: E402
from st_embfilter.cluster.tasks import Encoding, Filtering  # noqa: E402
from st_embfilter.commands import cluster as cluster_commands  # noqa: E402
from st_embfilter.errors import (  # noqa: E402
    ClusterError,
    DataError,
    MisuseError,
    NonFiniteError,
    OutputExistsError,
    OutputWriteError,
    VectorFileError,
    WidthError,
)
from st_embfilter.vectors.parquet_file import ParquetTable  # noqa: E402
from st_embfilter.vectors.transform import transform_file  # noqa: E402
from st_embfilter.vectors.vector_filter import VectorFilter  # noqa: E402

pytestmark = pytest.mark.slow

ROWS, WIDTH = 100, 6
# Of the tiny model's embeddings.
WIDE = 48
TWO = Workers(count=2)
FILTER = VectorFilter(np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Workers are given this file's classes themselves: they can't import it.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def texts_table(first: int, count: int) -> "pa.Table":
    numbers = range(first, first + count)
    texts = [f"text number {number}" + " and more" * (number % 7) for number in numbers]
    return pa.table({"id": pa.array(numbers), "text": texts, "tags": [["a", "b"]] * count})


def vectors_table(first: int, count: int, width: int = WIDTH) -> "pa.Table":
    rows = np.random.default_rng(first).standard_normal((count, width)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
    return pa.table({"id": pa.array(range(first, first + count)), "vector": lists})


def save_corpus(folder: Path, make: object) -> Path:
    """Two files, one of them in a folder, with row groups of 16."""
    (folder / "lang=en").mkdir(parents=True)
    pq.write_table(make(0, 60), folder / "a.parquet", row_group_size=16)  # type: ignore[operator]
    pq.write_table(
        make(60, ROWS - 60),  # type: ignore[operator]
        folder / "lang=en" / "b.parquet",
        row_group_size=16,
        compression="zstd",
    )
    (folder / "_notes.parquet").write_text("no Parquet, and passed over by its name")
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return save_corpus(tmp_path / "texts", texts_table)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    return save_corpus(tmp_path / "vectors", vectors_table)


def read(out: Path) -> "pa.Table":
    """A whole output, in its files' order."""
    files = sorted(out.rglob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def floats(table: "pa.Table", column: str = "vector") -> np.ndarray:
    return np.array(table.column(column).to_pylist(), np.float32)


EXPECTED = np.concatenate(
    [FILTER.apply(floats(vectors_table(*rows))) for rows in ((0, 60), (60, ROWS - 60))]
)


def is_alone(out: Path) -> bool:
    """Whether nothing is beside an output that speaks of it."""
    return not [path for path in out.parent.iterdir() if path.name.startswith(".")]


# The first ones, as there is a Ray as soon as a test wants one.
def test_ray_is_not_installed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "st_embfilter.cluster.run")
    failed = run("ray", "encode", "org/x", tmp_path, "--out", tmp_path / "out", "--column", "text")
    fails(failed, 1, "pip install 'st-embfilter[ray]'")


def test_no_such_cluster() -> None:
    with (
        pytest.raises(ClusterError, match="can't be reached at no-such-scheme://x"),
        ray_data.connected("no-such-scheme://x"),
    ):
        pass


def test_goes_on_after_the_driver_was_stopped(
    cluster: None, run: Run, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out"
    table = vectors_table(0, ROWS, WIDE)
    pq.write_table(table, source)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("st_embfilter.cluster.run.tqdm.update", stop)
        transform_corpus(source, out, tiny_artifact, column="vector", part_rows=10, workers=TWO)
    assert not out.exists()
    left = tmp_path / ".out.partial" / "parts"
    before = {path.name: path.stat().st_ino for path in left.iterdir()}
    assert before
    arguments = ("ray", "transform", source, "--filter", tiny_artifact, "--column", "vector")
    done = run(*arguments, "--out", out, "--part-rows", 10, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["rows"] == ROWS and "100 rows in 10 files" in done.stderr
    after = {path.name: path.stat().st_ino for path in out.iterdir()}
    assert len(after) == 11 and before.items() <= after.items() and is_alone(out)
    expected = VectorFilter.from_artifact(tiny_artifact).apply(floats(table))
    np.testing.assert_allclose(floats(read(out)), expected, atol=1e-5)
    with pytest.raises(OutputExistsError):
        transform_corpus(source, out, tiny_artifact, column="vector")


def test_stdout_is_the_results(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    # Ray's threads print what it has to say, and some of it after its end.
    def transform(*_: object, **__: object) -> dict[str, Any]:
        print("(raylet) a word")
        return {"rows": 1, "parts": [{}]}

    monkeypatch.setattr(ray_data, "transform_corpus", transform)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    source, out = tmp_path / "in.parquet", tmp_path / "out"
    cluster_commands.transform(source, str(tiny_artifact), out, "vector", as_json=True)
    print("(raylet) another")
    found = capsys.readouterr()
    assert json.loads(found.out) == {"rows": 1, "parts": [{}]}
    assert "a word" in found.err and "another" in found.err


def test_a_worker_of_a_stopped_run_is_still_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path / "out", "job")
    output.begin()
    (output.writing / "left.parquet").touch()
    rmtree = shutil.rmtree

    def racing(path: Path, *arguments: Any, **options: Any) -> None:
        # It is there again as soon as it was removed.
        rmtree(path, *arguments, **options)
        output.writing.mkdir(parents=True)
        (output.writing / "its.parquet").touch()

    monkeypatch.setattr(shutil, "rmtree", racing)
    assert output.begin() == set()
    assert [path.name for path in output.writing.iterdir()] == ["its.parquet"]
    assert output.publish([], {})["parts"] == []


def test_encoded(cluster: None, texts: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    arguments = (texts, tmp_path / "out", str(tiny_artifact))
    options = {"dims": 8, "normalize": True, "batch_size": 4, "part_rows": 32, "dtype": "float32"}
    encode_corpus(*arguments, column="text", workers=Workers(1), **options)  # type: ignore[arg-type]
    found = read(tmp_path / "out")
    whole = pa.concat_tables([texts_table(0, 60), texts_table(60, ROWS - 60)])
    assert found.drop_columns("embedding").equals(whole)
    model = SentenceTransformer(str(tiny_artifact), truncate_dim=8, device="cpu")
    texts_of_it = whole.column("text").to_pylist()
    expected = model.encode(texts_of_it, normalize_embeddings=True)
    np.testing.assert_allclose(floats(found, "embedding"), expected, atol=1e-5)
    facts = json.loads(found.schema.metadata[b"st_embfilter"])
    assert facts["normalized"] and facts["dims"] == 8


def test_cut_texts_are_told_once(
    cluster: None,
    texts: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = shutil.copytree(tiny_artifact, tmp_path / "short")
    settings = short / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace("512", "11"))
    encode_corpus(texts, tmp_path / "out", str(short), column="text", part_rows=32)
    assert caplog.text.count(f"{ROWS} of {ROWS} texts were longer") == 1


def test_an_error_in_a_worker(cluster: None, run: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    table = vectors_table(0, 20, WIDE)
    rows = floats(table)
    rows[13, 2] = np.nan
    broken = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDE)
    pq.write_table(table.set_column(1, "vector", broken), tmp_path / "in.parquet")
    arguments = ("--filter", tiny_artifact, "--column", "vector", "--out", tmp_path / "out")
    failed = run("ray", "transform", tmp_path / "in.parquet", *arguments, "--part-rows", 8)
    fails(failed, 1, "in.parquet: the vector in row 13 (from 0)")
    assert not (tmp_path / "out").exists()


def test_encode_hands_on_its_options(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def capture(*arguments: object) -> dict[str, object]:
        seen.extend(arguments)
        return {"rows": 0, "parts": []}

    monkeypatch.setattr(ray_data, "run", capture)
    monkeypatch.setattr(ray_data, "pinned", lambda name: f"{name}@commit")
    options = (
        "--dims",
        3,
        "--normalize",
        "--prompt-name",
        "document",
        "--batch-size",
        5,
        "--dtype",
        "bfloat16",
    )
    workers = ("--workers", 4, "--cpus-per-worker", 2, "--gpus-per-worker", 0.5, "--address", "a")
    out = ("--out", tmp_path / "out", "--part-rows", 7)
    done = run("ray", "encode", "org/x", tmp_path, "--column", "t", *out, *options, *workers)
    assert done.returncode == 0, done.stderr
    task = Encoding("org/x@commit", "org/x@commit", "t", 3, True, "document", 5, "cuda", "bfloat16")
    assert seen == [task, tmp_path, tmp_path / "out", 7, Workers(4, 2, 0.5, "a")]


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


TASK = Filtering(FILTER, "vector", False)


def begin(source: Path, out: Path, job: str = "job") -> tuple[Output, list[Part]]:
    output = Output(out, job)
    output.begin()
    return output, cut(source, 16, TASK.check)


def test_a_part_written_twice_is_there_once(vectors: Path, tmp_path: Path) -> None:
    output, parts = begin(vectors, tmp_path / "out")
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
    assert read(tmp_path / "out").column("id").to_pylist() == list(range(ROWS))
    assert manifest["rows"] == ROWS and is_alone(tmp_path / "out")


def test_a_part_that_no_worker_survives_is_given_up(vectors: Path, tmp_path: Path) -> None:
    output, parts = begin(vectors, tmp_path / "out")

    def killed(*_: object) -> "pa.RecordBatchReader":
        # What is left of a worker that was killed: the file that it had begun.
        left = next(output.writing.glob("*.parquet"))
        left.rename(left.with_suffix(".killed"))
        raise DataError("stands for a kill")

    for _ in range(TRIES):
        with pytest.raises(DataError):
            output.write(parts[1], killed)
    with pytest.raises(ClusterError, match=f"{TRIES} workers ended at 16 rows of .* from row 16"):
        output.write(parts[1], TASK.convert)
    output.write(parts[0], TASK.convert)
    # Another run tries again.
    assert output.begin() == {parts[0].name}
    output.write(parts[1], TASK.convert)


def test_an_error_that_is_not_ours_names_the_rows(vectors: Path, tmp_path: Path) -> None:
    class Failing(Filtering):
        def convert(self, table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
            raise RuntimeError("CUDA out of memory")

    output, parts = begin(vectors, tmp_path / "out")
    row = ray_data.PartWriter(Failing(FILTER, "vector", False), output)(asdict(parts[1]))
    assert row["error"] == "ClusterError"
    assert row["message"].startswith("RuntimeError: CUDA out of memory (at 16 rows of ")
    assert not list(output.writing.iterdir())


def test_what_another_job_left_is_not_mixed_in(vectors: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output, parts = begin(vectors, out, "another job")
    output.write(parts[0], TASK.convert)
    assert Output(out, "another job").begin() == {parts[0].name}
    assert Output(out, "job").begin() == set()


def test_parts_on_another_machines_disk(vectors: Path, tmp_path: Path) -> None:
    output, parts = begin(vectors, tmp_path / "out")
    output.write(parts[0], TASK.convert)
    with pytest.raises(OutputWriteError, match=r"6 of 7 parts are not here.*all machines share"):
        output.publish(parts, {})
    (tmp_path / "out").mkdir()
    for part in parts:
        output.write(part, TASK.convert)
    with pytest.raises(OutputExistsError):
        output.publish(parts, {})


def encoding(column: str = "text") -> Encoding:
    return Encoding("no-model", "", column, None, False, None, 4, "cpu", "auto")


def test_a_row_without_text(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c", None, "d"]}), path, row_group_size=2)
    part = cut(path, 2, encoding().check)[1]
    with pytest.raises(DataError, match=r"in\.parquet: row 3 \(from 0\) has no text"):
        encoding().convert(ParquetTable(path), part)


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
        cut(tmp_path / "in.parquet", 8, encoding().check)


def test_columns_of_vectors(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(vectors_table(0, 5, WIDTH + 1), path)
    with pytest.raises(MisuseError, match="holds int64"):
        cut(path, 8, Filtering(FILTER, "id", False).check)
    with pytest.raises(WidthError, match="vectors of 7 numbers, and the filter takes 6"):
        TASK.convert(ParquetTable(path), cut(path, 8, TASK.check)[0])
    pq.write_table(pa.table({"vector": pa.array([[1.0] * WIDTH, None])}), path)
    with pytest.raises(NonFiniteError, match=r"in\.parquet: the vector in row 1 .* is null"):
        TASK.convert(ParquetTable(path), cut(path, 8, TASK.check)[0]).read_all()


def test_an_object_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="object store"):
        transform_corpus(tmp_path, "s3://bucket/out", FILTER, column="vector")


def test_broken_files(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no such file or folder"):
        cut(tmp_path / "none", 8, TASK.check)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MisuseError, match=r"holds no \.parquet file"):
        cut(tmp_path / "empty", 8, TASK.check)
    parts = cut(vectors, 16, TASK.check)
    # Fewer rows than when the job began.
    pq.write_table(vectors_table(0, 20), vectors / "a.parquet")
    with pytest.raises(VectorFileError, match="rows are missing"):
        TASK.convert(ParquetTable(vectors / "a.parquet"), parts[1]).read_all()
    (vectors / "a.parquet").write_bytes((vectors / "a.parquet").read_bytes()[:-20])
    with pytest.raises(VectorFileError, match="can't be read"):
        cut(vectors, 16, TASK.check)


# The last one: Ray speaks of the killed worker on stdout for some time.
@dataclass(frozen=True)
class Dying(Filtering):
    """Its worker is killed in the middle of writing a part, once."""

    marker: Path

    def convert(self, table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
        whole = super().convert(table, part)

        def batches() -> Iterator["pa.RecordBatch"]:
            for batch in whole:
                yield batch.slice(0, 5)
                if part.name == "a-000000000016.parquet" and not self.marker.exists():
                    self.marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch.slice(5)

        return pa.RecordBatchReader.from_batches(whole.schema, batches())


def test_a_worker_is_killed(cluster: None, vectors: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    task = Dying(FILTER, "vector", False, tmp_path / "died")
    manifest = ray_data.run(task, vectors, out, 16, TWO)
    assert (tmp_path / "died").exists()
    found = read(out)
    assert found.column("id").to_pylist() == list(range(ROWS))
    np.testing.assert_array_equal(floats(found), EXPECTED)
    # Each part once, named after its rows, and nothing of what the killed worker had begun.
    names = [f"a-{first:012d}.parquet" for first in (0, 16, 32, 48)]
    names += [f"lang=en/b-{first:012d}.parquet" for first in (0, 16, 32)]
    files = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([MANIFEST, *names]) and is_alone(out)
    assert json.loads((out / MANIFEST).read_text()) == manifest
    assert manifest["rows"] == ROWS and [part["name"] for part in manifest["parts"]] == names


def test_rays_own_tensor_column(cluster: None, tiny_artifact: Path, tmp_path: Path) -> None:
    """Where Ray is imported its type is known, and in any other process only the metadata tell."""
    raw = np.random.default_rng(0).standard_normal((9, WIDE)).astype(np.float32)
    source = tmp_path / "raw"
    ray.data.from_numpy(raw).write_parquet(str(source))
    (file,) = source.glob("*.parquet")
    expected = VectorFilter.from_artifact(tiny_artifact).apply(raw)
    transform_corpus(source, tmp_path / "ray", tiny_artifact, column="data", workers=TWO)
    transform_file(file, tiny_artifact, tmp_path / "here.parquet")
    command = ["transform", file, "--filter", tiny_artifact, "--out", tmp_path / "there.parquet"]
    subprocess.run([sys.executable, "-m", "st_embfilter", *map(str, command)], check=True)
    for path in (tmp_path / "ray", tmp_path / "here.parquet", tmp_path / "there.parquet"):
        found = read(path) if path.is_dir() else pq.ParquetFile(path).read()
        assert pa.types.is_list(found["data"].type) or pa.types.is_large_list(found["data"].type)
        np.testing.assert_allclose(floats(found, "data"), expected, atol=1e-5)
