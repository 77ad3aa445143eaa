"""A corpus in S3, encoded and filtered into S3, whatever S3 answers.

One S3 (moto's) for all tests, and one Ray of two CPUs for the last ones; what isn't about processes
has two threads write the parts.
"""

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from support.command_line import Run, fails

pa = pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
pytest.importorskip("moto", reason="moto, which stands for S3, is missing: see the Makefile")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.cluster import planning  # noqa: E402
from st_embfilter.cluster import run as ray_data  # noqa: E402
from st_embfilter.cluster.output import Output  # noqa: E402
from st_embfilter.cluster.parts import MANIFEST, PART_NAME, UNFINISHED, Part  # noqa: E402
from st_embfilter.cluster.run import Workers, encode_corpus  # noqa: E402
from st_embfilter.cluster.tasks import Filtering  # noqa: E402
from st_embfilter.errors import DataError, OutputExistsError, StoreError  # noqa: E402
from st_embfilter.stores import Place  # noqa: E402
from support import s3_server  # noqa: E402
from support.corpora import (  # noqa: E402
    EXPECTED,
    FILTER,
    ROWS,
    TASK,
    files_of,
    floats,
    save_corpus,
    texts_table,
    vectors_table,
)
from support.local_ray import local_ray  # noqa: E402
from support.s3_server import BUCKET, S3, SECRET  # noqa: E402

pytestmark = pytest.mark.slow

TWO = Workers(count=2)
PARTS = 7


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tmp_path_factory.mktemp("corpora") / "vectors", vectors_table)


@pytest.fixture
def source(s3: S3, vectors: Path) -> str:
    uri = s3.put(vectors, "in")
    s3.requests.clear()
    return uri


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads in the place of Ray's workers."""

    def written(
        parts: list[Part], task: Filtering, output: Output, *_: object
    ) -> Iterator[dict[str, int]]:
        with ThreadPoolExecutor(2) as pool:
            for rows in pool.map(lambda part: output.write(part, task.convert), parts):
                yield {"rows": rows, "cut": 0}

    monkeypatch.setattr(ray_data, "connected", lambda address: nullcontext(True))
    monkeypatch.setattr(ray_data, "_written", written)


@pytest.fixture(scope="module")
def cluster(s3_server: S3) -> Iterator[None]:
    """Ray, whose workers find the server through the environment as it is now."""
    with local_ray(__name__):
        yield


OUT = f"s3://{BUCKET}/out"


def transform(
    source: str, out: str = OUT, task: Filtering = TASK, part_rows: int = 16
) -> dict[str, Any]:
    return ray_data.run(task, source, out, part_rows, TWO)


def contents(files: dict[str, bytes]) -> dict[str, bytes]:
    """An output's parts, without their names' digests, which differ with the input's place."""
    return {name[:-25]: data for name, data in files.items() if name != MANIFEST}


def check_whole(s3: S3, manifest: dict[str, Any]) -> None:
    """Each row once, each part once, nothing beside them, no credentials."""
    objects = s3.objects("out")
    assert set(objects) == {MANIFEST, *(part["name"] for part in manifest["parts"])}
    assert len(objects) == PARTS + 1 and json.loads(objects[MANIFEST]) == manifest
    tables = [
        pq.read_table(pa.BufferReader(objects[name]))
        for name in sorted(objects)
        if name != MANIFEST
    ]
    found = pa.concat_tables(tables)
    assert found.column("id").to_pylist() == list(range(ROWS))
    np.testing.assert_array_equal(floats(found), EXPECTED)
    assert not any(SECRET.encode() in content for content in objects.values())


def test_equal_to_the_local_run(
    threads: None, source: str, s3: S3, vectors: Path, tmp_path: Path
) -> None:
    manifest = transform(source)
    counts, puts = s3.counts(), [each for each in s3.requests if each.startswith("PUT out/")]
    check_whole(s3, manifest)
    local = transform(str(vectors), str(tmp_path / "out"))
    assert contents(s3.objects("out")) == contents(files_of(tmp_path / "out"))
    assert manifest["rows"] == local["rows"] == ROWS and manifest["source"] == source
    # Each part is put once; whatever its size, that takes no more than so many requests.
    assert sum(bool(PART_NAME.search(put)) for put in puts) == PARTS
    assert sum(counts.values()) <= 20 * PARTS, counts


def test_many_small_files(
    threads: None, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, sample = 60, 4
    monkeypatch.setattr(planning, "MOST_LOOKED_INTO", files - 1)
    monkeypatch.setattr(planning, "SAMPLE", sample)
    monkeypatch.setattr(planning, "JOINED_FILES", 25)
    (tmp_path / "in").mkdir()
    for number in range(files):
        pq.write_table(vectors_table(2 * number, 2), tmp_path / "in" / f"{number:03}.parquet")
    source = s3.put(tmp_path / "in", "in")
    s3.requests.clear()
    parts = planning.cut(Place.of(source), 1000, TASK.check, "job")
    assert [len(part.files) for part in parts] == [25, 25, 10]
    # A listing, and two for each that is looked into.
    assert sum(s3.counts().values()) <= 3 + 2 * sample
    s3.requests.clear()
    s3.fail("GET in/03", s3_server.cut_off, 2)
    s3.fail("HEAD in/05", s3_server.FAILED, 2)
    manifest = transform(source, part_rows=1000)
    assert manifest["rows"] == 2 * files
    reads = Counter(request for request in s3.requests if " in/" in request)
    # Opened, read at once, and looked at again; two and two were answered by faults.
    assert reads.total() <= 3 * files + 2 * sample + 4
    transform(str(tmp_path / "in"), str(tmp_path / "out"), part_rows=1000)
    assert contents(s3.objects("out")) == contents(files_of(tmp_path / "out"))


def test_faults_that_pass(threads: None, source: str, s3: S3) -> None:
    for request in (
        "GET list",
        "HEAD in",
        "GET in/a",
        "POST out",
        "PUT out",
        "HEAD out",
        "GET out",
    ):
        s3.fail(request, s3_server.FAILED, 2)
    s3.fail("PUT out/a-", s3_server.cut_off, 2, wait=2)
    s3.fail("GET in/lang", s3_server.cut_off, wait=1)
    check_whole(s3, transform(source))
    assert not any(fault.times for fault in s3.faults)


def test_credentials_that_expire_and_a_second_run(
    threads: None, source: str, s3: S3, run: Run, tiny_artifact: Path
) -> None:
    s3.fail("(PUT|POST) out/.*parquet", s3_server.EXPIRED, 1000, wait=9)
    with pytest.raises(
        StoreError, match=r"out/.*: the credentials have expired.*goes on there"
    ) as error:
        transform(source)
    assert SECRET not in str(error.value)
    left = set(s3.objects("out"))
    assert UNFINISHED in left and MANIFEST not in left and 1 < len(left) < PARTS
    with pytest.raises(DataError, match="out is not whole: the job that writes it hasn't ended"):
        transform(OUT, f"s3://{BUCKET}/another")
    s3.faults.clear()
    s3.requests.clear()
    check_whole(s3, transform(source))
    # Only what was missing is made again.
    assert sum(
        bool(re.match(r"PUT out/.*\.parquet", put)) for put in s3.requests
    ) == PARTS + 1 - len(left)
    with pytest.raises(OutputExistsError, match="already exists, and is whole"):
        transform(source)


def test_an_input_that_is_another_one_by_then(
    threads: None, source: str, s3: S3, tmp_path: Path
) -> None:
    s3.fail("PUT out/lang", s3_server.DENIED, 1000)
    with pytest.raises(StoreError, match="access is denied"):
        transform(source)
    s3.faults.clear()
    old = set(s3.objects("out"))
    # Of the same size, and perhaps in the same second: only its ETag tells.
    table = vectors_table(0, 60)
    pq.write_table(
        table.set_column(0, "id", pa.array(range(1000, 1060))),
        tmp_path / "a.parquet",
        row_group_size=16,
    )
    s3.put(tmp_path, "in")
    manifest = transform(source)
    objects = s3.objects("out")
    names = {part["name"] for part in manifest["parts"]}
    assert set(objects) == {MANIFEST, *names}
    assert not {name for name in old if name.startswith("a-")} & names
    first = pq.read_table(pa.BufferReader(objects[manifest["parts"][0]["name"]]))
    assert first.column("id").to_pylist() == list(range(1000, 1016))


def test_two_runs_at_the_same_time(
    threads: None, source: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None has ended before the other begins: that one would be refused.
    both, begin = Barrier(2), Output.begin

    def begin_together(output: Output, facts: dict[str, Any]) -> None:
        both.wait(60)
        begin(output, facts)

    monkeypatch.setattr(Output, "begin", begin_together)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(transform, source) for _ in range(2)]
        manifests = [run.result() for run in runs]
    assert manifests[0] == manifests[1]
    check_whole(s3, manifests[0])


def test_bad_input(
    threads: None,
    run: Run,
    source: str,
    s3: S3,
    tiny_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(source: str, out: str = OUT) -> Any:
        options = ("--filter", tiny_artifact, "--column", "vector", "--out", out)
        return run("ray", "transform", source, *options)

    fails(refused("nope://bucket/in"), 2, "no file system is known by nope://")
    fails(refused(source, "nope://bucket/in"), 2, "no file system is known by nope://")
    fails(refused(f"s3://key:{SECRET}@bucket/in"), 2, "given with credentials in it")
    fails(refused("s3://no-such-bucket/in"), 2, "s3://no-such-bucket/in: there is no such file")
    fails(refused(f"s3://{BUCKET}/none"), 2, f"s3://{BUCKET}/none: there is no such file")
    s3.fail("", s3_server.DENIED, 1000)
    fails(refused(source), 1, f"{OUT}: access is denied")
    s3.faults.clear()
    s3.fail("", s3_server.NO_S3, 1000)
    fails(refused(source), 1, f"{OUT}: what answers there doesn't speak as S3 does")
    s3.faults.clear()
    # Deleted between the listing and the look into it.
    gone = s3_server.status("404 Not Found")
    s3.fail("HEAD in/a.parquet", gone, 1000)
    fails(refused(source), 1, f"{source}/a.parquet is not there, or not any more")
    assert not s3.objects("out")


# From here on with Ray, which speaks of the killed worker on stdout for some time.
def test_encoded(cluster: None, s3: S3, tiny_artifact: Path, tmp_path: Path) -> None:
    texts = save_corpus(tmp_path / "texts", texts_table)
    manifest = encode_corpus(
        s3.put(texts, "in"), OUT, str(tiny_artifact), column="text", dtype="float32", workers=TWO
    )
    objects = s3.objects("out")
    tables = [pq.read_table(pa.BufferReader(objects[part["name"]])) for part in manifest["parts"]]
    found = pa.concat_tables(tables)
    assert len(objects) == 3 and found.column("id").to_pylist() == list(range(ROWS))
    expected = SentenceTransformer(str(tiny_artifact), device="cpu").encode(
        found.column("text").to_pylist()
    )
    np.testing.assert_allclose(floats(found, "embedding"), expected, atol=1e-5)


@dataclass(frozen=True)
class Dying(Filtering):
    """Its worker is killed in the middle of a part, once."""

    marker: Path

    def convert(self, table: Any, part: Any) -> "pa.RecordBatchReader":
        if part.name.startswith("a-000000000016") and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().convert(table, part)


def test_a_worker_is_killed(cluster: None, source: str, s3: S3, tmp_path: Path) -> None:
    check_whole(s3, transform(source, task=Dying(FILTER, "vector", False, tmp_path / "died")))
    assert (tmp_path / "died").exists()
