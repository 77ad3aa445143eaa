"""encode_to_file: rows in order, resumed after a kill, whole or not there."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from st_embfilter import encoding
from st_embfilter.encoding import encode_to_file
from st_embfilter.errors import OutputExistsError

TEXTS = [f"text number {number}" for number in range(50)]


class Interrupting:
    """Encodes like a model, until it has given a number of batches."""

    def __init__(self, model: SentenceTransformer, calls: int) -> None:
        self.model, self.calls, self.seen = model, calls, 0

    def encode(self, texts: list[str], **options: object) -> np.ndarray:
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        self.seen += len(texts)
        return self.model.encode(texts, **options)


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


def interrupt(model: SentenceTransformer, path: Path, job: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_to_file(Interrupting(model, 3), TEXTS, path, job=job, batch_size=4)  # type: ignore[arg-type]
    assert not path.exists()


def test_goes_on_where_it_was_stopped(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    interrupt(tiny_model, path, "job")
    rest = Interrupting(tiny_model, 100)
    encode_to_file(rest, TEXTS, path, job="job", batch_size=4)  # type: ignore[arg-type]
    assert rest.seen == len(TEXTS) - 3 * 2 * 4
    np.testing.assert_allclose(np.load(path), tiny_model.encode(TEXTS), atol=1e-5)


def test_another_job_starts_anew(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    interrupt(tiny_model, path, "job")
    fresh = Interrupting(tiny_model, 100)
    encode_to_file(fresh, TEXTS, path, job="another", batch_size=4)  # type: ignore[arg-type]
    assert fresh.seen == len(TEXTS)


def test_a_job_that_another_overwrote_starts_anew(
    tiny_model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.npy"
    interrupt(tiny_model, path, "job")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # Another job is stopped after it wrote over the rows, and before it said so.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoding, "write_state", killed)
        encode_to_file(tiny_model, TEXTS[::-1], path, job="another", batch_size=4)
    encode_to_file(tiny_model, TEXTS, path, job="job", batch_size=4)
    np.testing.assert_allclose(np.load(path), tiny_model.encode(TEXTS), atol=1e-5)


def test_an_output_that_exists_is_kept(tiny_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        encode_to_file(tiny_model, TEXTS, path, job="")
    assert path.read_bytes() == b"mine"
