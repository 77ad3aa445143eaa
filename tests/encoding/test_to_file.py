"""encode_to_file: rows in order, resumed after a kill, whole or not there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from st_embfilter import build_model
from st_embfilter.encoding import to_file as encoding
from st_embfilter.encoding.checks import Embeddings
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.encoding.to_file import encode_to_file
from st_embfilter.errors import MisuseError, OutputExistsError, OutputWriteError
from st_embfilter.job_state import JobState
from support.vector_data import file_size_limit

TEXTS = [f"text number {number}" for number in range(50)]


class Interrupting(PrefixEncoder):
    """Encodes, until it has been called a number of times."""

    calls, seen = 0, 0

    def encode(self, texts: Sequence[str], **options: Any) -> Embeddings:
        cls = type(self)
        if cls.calls == 0:
            raise KeyboardInterrupt
        cls.calls -= 1
        cls.seen += len(texts)
        return super().encode(texts, **options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Interrupting]:
    """What encode_to_file encodes with, for as many calls as are set."""
    monkeypatch.setattr(encoding, "PrefixEncoder", Interrupting)
    monkeypatch.setattr(Interrupting, "calls", 3)
    monkeypatch.setattr(Interrupting, "seen", 0)
    return Interrupting


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BATCHES", 2)


def test_rows_are_the_texts_embeddings(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.npy"
    assert encode_to_file(tiny_model, TEXTS, path, job="", batch_size=4) == (50, 24)
    found = np.load(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tiny_model.encode(TEXTS), atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["out.npy"]


def test_normalized(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    encode_to_file(tiny_model, TEXTS, tmp_path / "out.npy", job="", normalize=True)
    np.testing.assert_allclose(np.linalg.norm(np.load(tmp_path / "out.npy"), axis=1), 1, atol=1e-6)


def interrupt(
    model: SentenceTransformer, path: Path, job: str, counted: type[Interrupting]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_to_file(model, TEXTS, path, job=job, batch_size=4)
    assert not path.exists()
    counted.calls, counted.seen = 100, 0


def test_goes_on_where_it_was_stopped(
    tiny_model: SentenceTransformer, tmp_path: Path, counted: type[Interrupting]
) -> None:
    path = tmp_path / "out.npy"
    interrupt(tiny_model, path, "job", counted)
    encode_to_file(tiny_model, TEXTS, path, job="job", batch_size=4)
    assert counted.seen == len(TEXTS) - 3 * 2 * 4
    np.testing.assert_allclose(np.load(path), tiny_model.encode(TEXTS), atol=1e-5)


def test_another_job_starts_anew(
    tiny_model: SentenceTransformer, tmp_path: Path, counted: type[Interrupting]
) -> None:
    path = tmp_path / "out.npy"
    interrupt(tiny_model, path, "job", counted)
    encode_to_file(tiny_model, TEXTS, path, job="another", batch_size=4)
    assert counted.seen == len(TEXTS)


def test_a_job_that_another_overwrote_starts_anew(
    tiny_model: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: type[Interrupting],
) -> None:
    path = tmp_path / "out.npy"
    interrupt(tiny_model, path, "job", counted)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # Another job is stopped after it wrote over the rows, and before it said so.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JobState, "save", killed)
        encode_to_file(tiny_model, TEXTS[::-1], path, job="another", batch_size=4)
    encode_to_file(tiny_model, TEXTS, path, job="job", batch_size=4)
    np.testing.assert_allclose(np.load(path), tiny_model.encode(TEXTS), atol=1e-5)


def test_goes_on_after_a_full_disk(
    tiny_model: SentenceTransformer, tmp_path: Path, counted: type[Interrupting]
) -> None:
    path = tmp_path / "out.npy"
    counted.calls = 100
    # Two chunks of eight rows, and not the third.
    with file_size_limit(20 * 24 * 4), pytest.raises(OutputWriteError, match="goes on there"):
        encode_to_file(tiny_model, TEXTS, path, job="job", batch_size=4)
    assert not path.exists()
    counted.seen = 0
    assert encode_to_file(tiny_model, TEXTS, path, job="job", batch_size=4) == (50, 24)
    assert counted.seen == len(TEXTS) - 2 * 2 * 4
    np.testing.assert_allclose(np.load(path), tiny_model.encode(TEXTS), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["out.npy"]


def test_an_output_that_exists_is_kept(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        encode_to_file(tiny_model, TEXTS, path, job="")
    assert path.read_bytes() == b"mine"


def test_a_second_run_is_refused(
    tiny_model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.npy"

    class Twice(PrefixEncoder):
        def encode(self, texts: Sequence[str], **options: Any) -> Embeddings:
            monkeypatch.setattr(encoding, "PrefixEncoder", PrefixEncoder)
            with pytest.raises(MisuseError, match="another run"):
                encode_to_file(tiny_model, ["Another text."], path, job="")
            return super().encode(texts, **options)

    monkeypatch.setattr(encoding, "PrefixEncoder", Twice)
    encode_to_file(tiny_model, TEXTS, path, job="")
    np.testing.assert_allclose(np.load(path), tiny_model.encode(TEXTS), atol=1e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_cut_texts_are_told_once(
    counted: type[Interrupting], tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that a stopped run has done too."""
    model = build_model(tiny, band="edge", ratio=2, max_seq_length=20)
    texts = ["A long text. " * 20, "Short.", *(f"Another long one: {i} " * 9 for i in range(8))]
    with pytest.raises(KeyboardInterrupt):
        encode_to_file(model, texts, tmp_path / "a.npy", job="a", batch_size=1)
    assert "longer" not in caplog.text
    counted.calls = 10
    encode_to_file(model, texts, tmp_path / "a.npy", job="a", batch_size=1)
    assert caplog.text.count("9 of 10 texts were longer") == 1
