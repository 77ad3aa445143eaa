"""A hub's file read in ranges: the file's bytes, each fetched once, however often it breaks."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.checkpoint import remote_file
from st_embfilter.checkpoint.remote_file import KeptSpan, RangesIgnoredError, RemoteFile
from support.hub_server import COMMIT, Hub, serve

REPOSITORY, NAME = "org/data", "content.bin"
SIZE = 300_000
BEGIN, END = 1_000, 201_000
CONTENT = np.random.default_rng(0).bytes(SIZE)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("repository")
    (folder / NAME).write_bytes(CONTENT)
    with serve({REPOSITORY: folder}) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_file, "hf_hub_url", partial(hf_hub_url, endpoint=hub.url))
        patch.setattr("time.sleep", lambda seconds: None)
        yield hub


@pytest.fixture(autouse=True)
def fresh(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    hub.requests.clear()
    hub.cut.clear()
    hub.whole.clear()
    hub.faults.clear()


def remote() -> RemoteFile:
    return RemoteFile(REPOSITORY, NAME, COMMIT)


def span() -> KeptSpan:
    return KeptSpan(remote(), BEGIN, END)


def fetched(hub: Hub) -> int:
    return hub.fetched(REPOSITORY, NAME)


@pytest.fixture(scope="module")
def opened(hub: Hub) -> RemoteFile:
    return remote()


@pytest.mark.slow
@given(st.integers(0, SIZE + 5), st.integers(-1, SIZE))
def test_reads_as_a_file_does(opened: RemoteFile, start: int, size: int) -> None:
    opened.seek(start)
    expected = CONTENT[start:] if size < 0 else CONTENT[start : start + size]
    assert opened.read(size) == expected
    assert opened.tell() == start + len(expected)


def test_the_end_is_known() -> None:
    file = remote()
    assert file.seek(0, os.SEEK_END) == len(CONTENT) and file.read(10) == b""
    assert file.seek(-7, os.SEEK_END) == SIZE - 7 and file.read() == CONTENT[-7:]


def test_a_span_is_fetched_once(hub: Hub) -> None:
    for _ in range(2):
        with span() as file:
            assert file.read() == CONTENT[BEGIN:END]
    assert fetched(hub) == END - BEGIN


def test_what_came_before_a_stop_is_not_fetched_again(hub: Hub) -> None:
    with span() as file:
        assert file.read(70_000) == CONTENT[BEGIN : BEGIN + 70_000]
    (kept,) = Path(constants.HF_HOME, "st-embfilter").iterdir()
    held = kept.stat().st_size
    assert 70_000 <= held < END - BEGIN
    hub.requests.clear()
    with span() as file:
        assert file.read() == CONTENT[BEGIN:END]
    assert fetched(hub) == END - BEGIN - held


def test_two_at_once() -> None:
    with span() as one, span() as two:
        parts = [[file.read(30_011) for file in (one, two)] for _ in range(7)]
        assert all(b"".join(column) == CONTENT[BEGIN:END] for column in zip(*parts, strict=True))


def test_a_broken_connection_is_taken_up(hub: Hub) -> None:
    hub.cut.add((REPOSITORY, NAME))

    def mend(method: str, path: str) -> None:
        if len(hub.requests) > 3:
            hub.cut.clear()

    hub.watch = mend
    with span() as file:
        assert file.read() == CONTENT[BEGIN:END]
    # Before 1.0, huggingface_hub loses the last piece of a body that breaks off.
    assert END - BEGIN <= fetched(hub) < 2 * (END - BEGIN) and len(hub.requests) > 3


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_stays_away(hub: Hub, status: int) -> None:
    file = remote()
    hub.faults["GET"] = status
    with pytest.raises(HfHubHTTPError):
        file.read(10)
    assert len(hub.requests) == 1 + remote_file.ATTEMPTS


def test_a_refusal_is_not_asked_for_again(hub: Hub) -> None:
    file = remote()
    hub.faults["GET"] = 403
    with pytest.raises(HfHubHTTPError):
        file.read(10)
    assert len(hub.requests) == 2


def test_a_server_that_ignores_ranges(hub: Hub) -> None:
    file = remote()
    hub.whole.add((REPOSITORY, NAME))
    with pytest.raises(RangesIgnoredError, match=r"ignores range requests.*hf download"):
        file.read(10)
    assert len(hub.requests) == 2
