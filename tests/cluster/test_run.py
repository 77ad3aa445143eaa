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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from support.command_line import Run, fails

pa = pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.cluster import run as ray_data  # noqa: E402
from st_embfilter.cluster.output import Output  # noqa: E402
from st_embfilter.cluster.parts import MANIFEST, UNFINISHED, Part  # noqa: E402
from st_embfilter.cluster.planning import cut  # noqa: E402
from st_embfilter.cluster.run import Workers, encode_corpus, transform_corpus  # noqa: E402
from st_embfilter.cluster.tasks import Encoding, Filtering  # noqa: E402
from st_embfilter.commands import cluster as cluster_commands  # noqa: E402
from st_embfilter.errors import ClusterError, MisuseError, OutputExistsError  # noqa: E402
from st_embfilter.stores import Place  # noqa: E402
from st_embfilter.vectors.parquet_file import ParquetTable  # noqa: E402
from st_embfilter.vectors.transform import transform_file  # noqa: E402
from st_embfilter.vectors.vector_filter import VectorFilter  # noqa: E402
from support.corpora import (  # noqa: E402
    EXPECTED,
    FILTER,
    ROWS,
    TASK,
    WIDE,
    files_of,
    floats,
    read,
    save_corpus,
    texts_table,
    vectors_table,
)
from support.local_ray import local_ray  # noqa: E402

pytestmark = pytest.mark.slow

TWO = Workers(count=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_ray(__name__):
        yield


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return save_corpus(tmp_path / "texts", texts_table)


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
    assert UNFINISHED in files_of(out) and MANIFEST not in files_of(out)
    before = {path.name: path.stat().st_ino for path in out.glob("*.parquet")}
    assert before
    arguments = ("ray", "transform", source, "--filter", tiny_artifact, "--column", "vector")
    done = run(*arguments, "--out", out, "--part-rows", 10, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["rows"] == ROWS and "100 rows in 10 files" in done.stderr
    after = {path.name: path.stat().st_ino for path in out.iterdir()}
    assert len(after) == 11 and before.items() <= after.items()
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
    assert MANIFEST not in files_of(tmp_path / "out")


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
    assert seen == [task, str(tmp_path), str(tmp_path / "out"), 7, Workers(4, 2, 0.5, "a")]


def test_a_part_that_no_worker_survives_is_given_up(
    cluster: None, vectors: Path, tmp_path: Path
) -> None:
    place = Place.of(tmp_path / "out")
    output = Output(place, "command")
    output.begin(TASK.facts())
    part = cut(Place.of(vectors), 16, TASK.check, "job")[1]
    tries = ray.remote(num_cpus=0)(ray_data.Tries).remote()
    worker = ray_data.PartWriter(TASK, output, tries)
    # What is left of workers that were killed is that they had begun.
    for _ in range(ray_data.TRIES):
        ray.get(tries.begin.remote(part.name))
    row = worker({"part": part})
    assert row["error"] == "ClusterError"
    assert (
        f"{ray_data.TRIES} workers ended at 16 rows of {part.source} from row 16" in row["message"]
    )
    # Another run tries again.
    tries = ray.remote(num_cpus=0)(ray_data.Tries).remote()
    assert ray_data.PartWriter(TASK, output, tries)({"part": part})["rows"] == 16


class Failing(Filtering):
    def convert(self, table: ParquetTable, part: Part) -> "pa.RecordBatchReader":
        raise RuntimeError("CUDA out of memory")


def test_an_error_that_is_not_ours_names_the_rows(
    cluster: None, vectors: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=r"RuntimeError: CUDA out of memory \(at 16 rows of "):
        ray_data.run(Failing(FILTER, "vector", False), vectors, tmp_path / "out", 16, TWO)
    assert list(files_of(tmp_path / "out")) == [UNFINISHED]


def test_the_output_is_not_in_the_input(vectors: Path) -> None:
    for out in (vectors, vectors / "out"):
        with pytest.raises(MisuseError, match=r"lies in .*vectors, the input"):
            transform_corpus(vectors, out, FILTER, column="vector")


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
                if part.name.startswith("a-000000000016") and not self.marker.exists():
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
    names = [part["name"] for part in manifest["parts"]]
    assert [name[:-25] for name in names] == [
        *(f"a-{first:012d}" for first in (0, 16, 32, 48)),
        *(f"lang=en/b-{first:012d}" for first in (0, 16, 32)),
    ]
    assert set(files_of(out)) == {MANIFEST, *names}
    assert json.loads((out / MANIFEST).read_text()) == manifest
    assert manifest["rows"] == ROWS


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
