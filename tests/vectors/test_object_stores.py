"""Vectors in S3 filtered into S3: the local command's bytes, and a run that goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("moto", reason="moto, which stands for S3, is missing: see the Makefile")
import pyarrow.parquet as pq  # noqa: E402

from st_embfilter.errors import (  # noqa: E402
    MisuseError,
    NonFiniteError,
    OutputExistsError,
    StoreError,
    VectorFileError,
)
from st_embfilter.stores import Place, work_folder  # noqa: E402
from st_embfilter.vectors.job import FilterJob  # noqa: E402
from st_embfilter.vectors.transform import transform_file  # noqa: E402
from support import s3_server  # noqa: E402
from support.command_line import Run  # noqa: E402
from support.corpora import FILTER, WIDTH, files_of, vectors_table  # noqa: E402
from support.s3_server import BUCKET, S3  # noqa: E402


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "st-embfilter"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder of vectors, one of them NaN, as .npy, Parquet and FAISS index."""
    faiss = pytest.importorskip("faiss")
    folder = tmp_path / "in"
    folder.mkdir()
    rows = np.random.default_rng(0).standard_normal((50, WIDTH)).astype(np.float32)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(rows)
    faiss.write_index(index, str(folder / "raw.faiss"))
    pq.write_table(vectors_table(0, 50), folder / "raw.parquet")
    rows[7, 1] = np.nan
    np.save(folder / "raw.npy", rows)
    return folder


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("npy", {"nan": "drop"}),
        ("npy", {"nan": "drop", "dtype": "int8"}),
        ("parquet", {"normalize": True}),
        ("faiss", {}),
    ],
)
def test_equal_to_the_local_run(
    suffix: str, options: dict[str, Any], local: Path, s3: S3, cache: Path, tmp_path: Path
) -> None:
    source = f"{s3.put(local, 'in')}/raw.{suffix}"
    out = f"s3://{BUCKET}/out/new.{suffix}"
    (tmp_path / "out").mkdir()
    here = transform_file(
        local / f"raw.{suffix}", FILTER, tmp_path / "out" / f"new.{suffix}", **options
    )
    there = transform_file(source, FILTER, out, **options)
    assert s3.objects("out") == files_of(tmp_path / "out") != {}
    assert there.path == out and there.rows == here.rows
    assert not list(cache.iterdir())
    # From there to here, and the other way round.
    transform_file(source, FILTER, tmp_path / f"again.{suffix}", **options)
    transform_file(local / f"raw.{suffix}", FILTER, f"s3://{BUCKET}/again.{suffix}", **options)
    content = (tmp_path / f"again.{suffix}").read_bytes()
    assert (
        content
        == s3.objects("out")[f"new.{suffix}"]
        == Place.of(f"s3://{BUCKET}/again.{suffix}").read()
    )
    with pytest.raises(OutputExistsError, match="already exists"):
        transform_file(source, FILTER, out, **options)


def test_goes_on_when_the_store_did_not_take_it(
    local: Path, s3: S3, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = f"{s3.put(local, 'in')}/raw.npy", f"s3://{BUCKET}/new.npy"
    s3.fail("(POST|PUT) new.npy$", s3_server.EXPIRED, 1000)
    with pytest.raises(StoreError, match=r"have expired.* What was done is kept in") as error:
        transform_file(source, FILTER, out, nan="drop")
    assert str(work_folder(Place.of(source), Place.of(out))) in str(error.value)
    s3.faults.clear()
    s3.requests.clear()
    blocks = []
    monkeypatch.setattr(FilterJob, "filter_block", lambda *_: blocks.append(1))
    transform_file(source, FILTER, out, nan="drop")
    # Nothing is filtered again, nor fetched.
    assert not blocks and not [each for each in s3.requests if each.startswith("GET in")]
    assert {"new.npy", "new.npy.dropped.npy"} <= Place.of(f"s3://{BUCKET}").files().keys()
    assert not list(cache.iterdir())


def test_another_input_is_fetched_anew(local: Path, s3: S3, cache: Path) -> None:
    source, out = f"{s3.put(local, 'in')}/raw.parquet", f"s3://{BUCKET}/new.parquet"
    s3.fail("POST new.parquet", s3_server.DENIED)
    with pytest.raises(StoreError, match="access is denied"):
        transform_file(source, FILTER, out)
    pq.write_table(vectors_table(1, 50), local / "raw.parquet")
    s3.put(local, "in")
    transform_file(source, FILTER, out)
    transform_file(local / "raw.parquet", FILTER, local / "new.parquet")
    assert Place.of(out).read() == (local / "new.parquet").read_bytes()
    assert not list(cache.iterdir())


def test_errors_name_the_object(local: Path, s3: S3, cache: Path) -> None:
    raw, out = f"{s3.put(local, 'in')}/raw.npy", f"s3://{BUCKET}/out.npy"
    with pytest.raises(NonFiniteError, match=f"^{raw}: 1 of 50 rows hold NaN"):
        transform_file(raw, FILTER, out)
    (local / "raw.npy").write_bytes(b"no array")
    s3.put(local, "in")
    with pytest.raises(VectorFileError, match=f"^{raw} can't be read"):
        transform_file(raw, FILTER, out)


def test_lance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="a Lance dataset has to be on a disk here"):
        transform_file("s3://bucket/raw.lance", FILTER, tmp_path / "new.lance")


def test_the_command(run: Run, tiny_artifact: Path, s3: S3, cache: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "raw.npy", np.ones((5, 48), np.float32))
    Place.of(f"s3://{BUCKET}/raw.npy").write((tmp_path / "raw.npy").read_bytes())
    out = f"s3://{BUCKET}/new.npy"
    done = run(
        "transform", f"s3://{BUCKET}/raw.npy", "--filter", tiny_artifact, "--out", out, "--json"
    )
    assert done.returncode == 0 and f'"path": "{out}"' in done.stdout, done.stderr
