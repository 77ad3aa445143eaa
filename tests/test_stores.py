"""Files and folders on a disk and in an object store: one way, one error for what goes wrong."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("moto", reason="moto, which stands for S3, is missing: see the Makefile")

from st_embfilter import file_systems  # noqa: E402
from st_embfilter.errors import (  # noqa: E402
    MissingDependencyError,
    MisuseError,
    StoreError,
)
from st_embfilter.store_errors import store_errors  # noqa: E402
from st_embfilter.stores import Place  # noqa: E402
from support import s3_server  # noqa: E402
from support.s3_server import BUCKET, S3, SECRET  # noqa: E402


@pytest.fixture(params=["disk", "s3", "gs", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty one, of each kind of file system: this machine's, pyarrow's and fsspec's."""
    if request.param == "gs":
        return Place.of(request.getfixturevalue("gcs").uri("deep/folder"))
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Place.of(f"s3://{BUCKET}/deep/folder")
    return Place.of(tmp_path if request.param == "disk" else f"memory://{tmp_path.name}/folder")


def test_put_list_read_delete(folder: Place) -> None:
    assert folder.files() == {} and not folder.inside("a").exists()
    for name in ("b/c", "a", "b/d e%20=é"):
        folder.inside(name).write(name.encode())
    assert list(folder.files()) == ["a", "b/c", "b/d e%20=é"]
    assert folder.files()["b/c"].size == 3
    assert folder.inside("b/d e%20=é").read() == "b/d e%20=é".encode()
    assert folder.inside("a").is_file() and folder.inside("b").exists()
    assert not folder.inside("b").is_file() and folder.inside("none").read() is None
    folder.inside("a").write(b"another")
    assert folder.inside("a").open().read() == b"another"
    folder.inside("a").delete()
    folder.inside("a").delete()
    assert list(folder.files()) == ["b/c", "b/d e%20=é"]


def test_nothing_is_put_when_writing_fails(folder: Place) -> None:
    place = folder.inside("deep/part")
    with pytest.raises(RuntimeError), place.putting() as file:
        file.write_bytes(b"a half")
        raise RuntimeError
    assert folder.files() == {}


def test_a_version_tells_contents_apart(folder: Place) -> None:
    place = folder.inside("a")
    place.write(b"one")
    before = place.version(place.info(), place.open())
    assert place.version(folder.files()["a"], place.open()) == before
    assert place.version(folder.files()["a"]) == place.version(place.info())
    place.write(b"two")
    # Of the same size, and perhaps in the same second.
    assert place.version(place.info(), place.open()) != before


def test_a_version_takes_no_request_of_its_own(s3: S3) -> None:
    place = Place.of(f"s3://{BUCKET}/a")
    place.write(b"one")
    info = place.info()
    s3.requests.clear()
    place.version(info, place.open())
    assert s3.requests == ["HEAD a"]
    place.version(info)
    assert s3.requests == ["HEAD a"]


@pytest.mark.parametrize("told", [s3_server.ERROR.format("NoSuchKey", "No such key"), ""])
def test_deleted_after_it_was_found(told: str, s3: S3) -> None:
    place = Place.of(f"s3://{BUCKET}/a")
    # The answer's text has to find room where the object was to go.
    place.write(bytes(1000))
    s3.fail("GET a", s3_server.status("404 Not Found", told), 2)
    assert place.read() is None
    with (
        pytest.raises(StoreError, match="a is not there, or not any more"),
        store_errors(place),
    ):
        place.open().read()


@pytest.mark.slow
def test_a_large_object_is_whole_or_not_there(s3: S3) -> None:
    content = bytes(range(256)) * (100 << 10)
    place = Place.of(f"s3://{BUCKET}/large")
    s3.fail("PUT large", s3_server.cut_off, 2)
    place.write(content)
    assert place.read() == content and s3.counts()["PUT"] > 4
    place.delete()
    # At its begin, at one of its pieces, at its end.
    for request, wait in (("POST large", 0), ("PUT large", 0), ("POST large", 1)):
        s3.fail(request, s3_server.DENIED, wait=wait)
        with pytest.raises(StoreError, match=f"s3://{BUCKET}/large: access is denied"):
            place.write(content)
        assert not place.exists()


def test_an_interrupt_leaves_no_half_an_object(s3: S3) -> None:
    content = bytes(range(256)) * (100 << 10)
    place = Place.of(f"s3://{BUCKET}/large")

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    s3.fail("PUT large", interrupt)
    with pytest.raises(KeyboardInterrupt):
        place.write(content)
    assert place.read() == content


@pytest.mark.slow
def test_a_killed_process_leaves_no_object(s3: S3) -> None:
    write = f"Place.of('s3://{BUCKET}/large').write(bytes(30_000_000))"
    command = [sys.executable, "-c", f"from st_embfilter.stores import Place; {write}"]
    process = subprocess.Popen(command)

    def kill(*_: object) -> None:
        process.kill()

    s3.fail("PUT large", kill, wait=1)
    assert process.wait() == -signal.SIGKILL
    assert not Place.of(f"s3://{BUCKET}/large").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [s3_server.FAILED, s3_server.cut_off])
def test_what_passes_is_tried_again(fault: s3_server.Answer, s3: S3) -> None:
    place, content = Place.of(f"s3://{BUCKET}/a"), b"content" * 100
    for request in ("POST a", "PUT a", "HEAD a", "GET a", "GET list"):
        s3.fail(request, fault)
    place.write(content)
    assert place.read() == content
    assert list(Place.of(f"s3://{BUCKET}").files()) == ["a"]
    assert s3.counts() == {"POST": 3, "PUT": 2, "HEAD": 2, "GET": 4}


@pytest.mark.slow
def test_a_slow_answer_is_waited_for(s3: S3) -> None:
    place = Place.of(f"s3://{BUCKET}/a")
    s3.fail("PUT a", s3_server.slow)
    place.write(b"content")
    assert s3.counts() == {"POST": 2, "PUT": 1}


@pytest.mark.slow
def test_a_listing_in_pages(s3: S3) -> None:
    s3.make_empty(f"many/{number % 3}/{number}" for number in range(2100))
    assert len(Place.of(f"s3://{BUCKET}/many").files()) == 2100
    assert s3.counts() == {"GET": 3}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (s3_server.DENIED, "access is denied: see which credentials"),
        (s3_server.EXPIRED, "the credentials have expired: renew them"),
        (s3_server.NO_S3, "what answers there doesn't speak as S3 does"),
    ],
)
def test_refused(fault: s3_server.Answer, words: str, s3: S3) -> None:
    folder = Place.of(f"s3://{BUCKET}/folder")
    s3.fail("", fault, 2)
    for use in (folder.files, lambda: folder.inside("a").write(b"a" * 10_000_000)):
        with pytest.raises(StoreError, match=rf"s3://{BUCKET}/folder.*: {words}") as error:
            use()
        assert SECRET not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "word"), [(s3_server.DENIED, "denied"), (s3_server.EXPIRED, "expired")]
)
def test_refused_without_a_word(fault: s3_server.Answer, word: str, s3: S3) -> None:
    s3.fail("HEAD", fault, 2)
    for use in (Place.of(f"s3://{BUCKET}/a").info, Place.of(f"s3://{BUCKET}/a").open):
        with pytest.raises(StoreError, match=word):
            use()


def test_no_such_bucket(s3: S3) -> None:
    place = Place.of("s3://no-such-bucket/a")
    assert not place.exists() and not place.files()
    with pytest.raises(StoreError, match="s3://no-such-bucket/a: there is no such bucket"):
        place.write(b"a")


def test_no_such_endpoint(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its one try is enough here.
    monkeypatch.setattr(file_systems, "TRIES", 1)
    place = Place.of("s3://bucket/a?endpoint_override=127.0.0.1:1&scheme=http")
    with pytest.raises(StoreError, match="failed again and again, or can't be reached"):
        place.files()


def test_googles_errors(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "RETRY_SECONDS", 1)
    place = Place.of("gs://anonymous@bucket/a?endpoint_override=127.0.0.1:1&scheme=http")
    with pytest.raises(StoreError, match=r"can't be reached: .*connect"):
        place.files()
    endpoint = s3.url.removeprefix("http://")
    place = Place.of(f"gs://anonymous@bucket/a?endpoint_override={endpoint}&scheme=http")
    s3.fail("", s3_server.DENIED, 1000)
    with pytest.raises(StoreError, match="access is denied: see which credentials"):
        place.files()


def test_an_endpoint_in_the_uri(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = f"s3://{BUCKET}/folder?endpoint_override={s3.url.removeprefix('http://')}&scheme=http"
    place = Place.of(uri).inside("a")
    place.write(b"content")
    assert s3.objects("folder") == {"a": b"content"}
    assert str(place) == uri.replace("?", "/a?")


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://key:{SECRET}@bucket/a",
        f"s3://key:{SECRET}/with-a-slash@bucket/a",
        f"s3://{SECRET}@bucket/a",
        f"https://user:{SECRET}@host/a",
        f"s3://bucket/a?secret_key={SECRET}",
        f"s3://bucket/a?endpoint_override=http://user:{SECRET}@localhost",
        f"abfss://box@account.dfs.core.windows.net/a?{SECRET}",
    ],
)
def test_credentials_in_a_uri(uri: str) -> None:
    with pytest.raises(MisuseError, match="where the store's tools look for them") as error:
        Place.of(uri)
    assert SECRET not in str(error.value)


def test_what_other_processes_are_given(s3: S3) -> None:
    place = Place.of(f"s3://{BUCKET}/a")
    place.write(b"content")
    given = pickle.dumps(place)
    assert SECRET.encode() not in given and len(given) < 300
    assert pickle.loads(given).read() == b"content"


def test_schemes(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no file system is known by nope://"):
        Place.of("nope://bucket/a").files()
    with pytest.raises(MissingDependencyError, match=r"needs another package: .*adlfs"):
        Place.of("adl://bucket/a").files()
    assert Place.of(f"file://{tmp_path}") == Place.of(tmp_path) and str(Place.of(tmp_path))
    with pytest.raises(MisuseError, match="give a URI as a string"):
        Place.of(Path("s3://bucket/a"))


@pytest.mark.parametrize(
    ("uri", "kind", "path"),
    [
        ("gs://bucket/a/b", "gcs", "bucket/a/b"),
        ("abfss://box@account.dfs.core.windows.net/a/b", "abfs", "box/a/b"),
        ("hf://datasets/org/name/a", "py::fsspec+hf", "datasets/org/name/a"),
        ("s3://bucket", "s3", "bucket"),
    ],
)
def test_other_file_systems_are_found(uri: str, kind: str, path: str, s3: S3) -> None:
    """Found, and nothing more: there is none here to ask."""
    files, found = Place.of(uri)._opened()
    assert (files.type_name, found) == (kind, path)
    assert str(Place.of(uri).inside("c")) == f"{uri}/c"


def test_holds(tmp_path: Path) -> None:
    assert Place.of(tmp_path / "a").holds(Place.of(tmp_path / "a" / "b"))
    assert not Place.of(tmp_path / "a").holds(Place.of(tmp_path / "a" / ".." / "b"))
    folder = Place.of("s3://bucket/a")
    for inside in ("s3://bucket/a", "s3://bucket/a/", "s3://bucket/a/b/c"):
        assert folder.holds(Place.of(inside))
    for beside in ("s3://bucket/ab", "s3://other/a/b", "gs://bucket/a/b", "s3://bucket"):
        assert not folder.holds(Place.of(beside))
    assert Place.of("s3://bucket").holds(folder)
