"""Texts in S3 encoded into S3: the local command's bytes, and a run that goes on."""

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("moto", reason="moto, which stands for S3, is missing: see the Makefile")

from st_embfilter.stores import Place
from support import s3_server
from support.command_line import Run, fails
from support.s3_server import BUCKET, S3, SECRET

TEXTS, OUT = f"s3://{BUCKET}/texts.txt", f"s3://{BUCKET}/texts.npy"
LINES = "\ufeffa text\r\n\nanother — with a dash\nand one without an end".encode()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Place.of(TEXTS).write(LINES)
    return tmp_path / "cache" / "st-embfilter"


def test_equal_to_the_local_run(run: Run, tiny_artifact: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(LINES)
    here = run("encode", tiny_artifact, tmp_path / "texts.txt", "--out", tmp_path / "texts.npy")
    there = run("encode", tiny_artifact, TEXTS, "--out", OUT, "--json")
    assert here.returncode == there.returncode == 0, there.stderr
    assert Place.of(OUT).read() == (tmp_path / "texts.npy").read_bytes()
    assert f'"path": "{OUT}", "shape": [4, ' in there.stdout
    assert not list(cache.iterdir())
    fails(run("encode", tiny_artifact, TEXTS, "--out", OUT), 2, f"{OUT} already exists")


def test_goes_on_when_the_store_did_not_take_it(
    run: Run, tiny_artifact: Path, s3: S3, cache: Path
) -> None:
    s3.fail("POST texts.npy", s3_server.EXPIRED)
    failed = run("encode", tiny_artifact, TEXTS, "--out", OUT)
    fails(failed, 1, "the credentials have expired", f"What was done is kept in {cache}")
    done = run("encode", tiny_artifact, TEXTS, "--out", OUT)
    assert done.returncode == 0 and Place.of(OUT).exists() and not list(cache.iterdir())
    assert "Encoding:   0%" not in done.stderr


def test_bad_input(run: Run, tiny_artifact: Path, s3: S3) -> None:
    missing = f"s3://{BUCKET}/none.txt"
    fails(run("encode", tiny_artifact, missing, "--out", OUT), 1, f"{missing} is not there")
    s3.fail("texts.txt", s3_server.DENIED, 1000)
    fails(run("encode", tiny_artifact, TEXTS, "--out", OUT), 1, f"{TEXTS}: access is denied")
    s3.faults.clear()
    s3.fail("texts.txt", s3_server.NO_S3, 1000)
    no_s3 = run("encode", tiny_artifact, TEXTS, "--out", OUT)
    fails(no_s3, 1, f"{TEXTS}: what answers there doesn't speak as S3 does")
    s3.faults.clear()
    # What it is may be known, and not what it holds.
    Place.of(TEXTS).write(LINES * 40)
    s3.fail("GET texts.txt", s3_server.DENIED, 1000)
    fails(run("encode", tiny_artifact, TEXTS, "--out", OUT), 1, f"{TEXTS}: access is denied")
    secret = f"s3://key:{SECRET}@bucket/texts.npy"
    refused = run("encode", tiny_artifact, TEXTS, "--out", secret)
    fails(refused, 2, "given with credentials in it")
    assert SECRET not in refused.stderr
