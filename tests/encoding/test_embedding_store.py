"""Embeddings on disk: found again, whatever happened while they were written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("filelock")
from st_embfilter.encoding.embedding_store import KEY_BYTES, EmbeddingStore
from st_embfilter.errors import CheckpointError, OutputWriteError

WIDTH = 3


def keys(numbers: list[int]) -> np.ndarray:
    return np.array([number.to_bytes(KEY_BYTES, "big") for number in numbers], f"S{KEY_BYTES}")


def vectors(numbers: list[int]) -> np.ndarray:
    return np.array([[n, n + 0.5, -n] for n in numbers], np.float32).reshape(-1, WIDTH)


NUMBERS = st.lists(st.integers(0, 2**64), unique=True, max_size=30)


@given(batches=st.lists(NUMBERS, max_size=5), data=st.data())
def test_what_was_appended_is_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = EmbeddingStore(folder, WIDTH)
    known: list[int] = []
    for batch in batches:
        fresh = [n for n in batch if n not in known]
        store.append(keys(fresh), vectors(fresh))
        store.index()
        known += fresh
    store.close()
    store = EmbeddingStore(folder, WIDTH)
    asked = data.draw(st.lists(st.sampled_from(known), max_size=20)) if known else []
    np.testing.assert_array_equal(store.read(keys(asked)), vectors(asked))
    unknown = [n for n in (5, 7, 2**70) if n not in known]
    assert not store.has(keys(unknown)).any() and store.has(keys(known)).all()
    assert len(store) == len(known)
    store.close()


@given(cut_vectors=st.integers(0, 30), cut_keys=st.integers(0, 40))
def test_a_torn_end_costs_what_was_torn_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, cut_vectors: int, cut_keys: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    numbers = list(range(1, 6))
    store = EmbeddingStore(folder, WIDTH)
    store.append(keys(numbers), vectors(numbers))
    store.close()
    for name, cut in (("vectors.f32", cut_vectors), ("keys.bin", cut_keys)):
        with (folder / name).open("r+b") as file:
            file.truncate((folder / name).stat().st_size - cut)
    whole = min((60 - cut_vectors) // 12, (80 - cut_keys) // 16)
    store = EmbeddingStore(folder, WIDTH)
    assert len(store) == whole
    np.testing.assert_array_equal(store.read(keys(numbers[:whole])), vectors(numbers[:whole]))
    rest = numbers[whole:]
    store.append(keys(rest), vectors(rest))
    store.index()
    np.testing.assert_array_equal(store.read(keys(numbers)), vectors(numbers))
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, WIDTH)
    code = f"""
from st_embfilter.encoding.embedding_store import EmbeddingStore
EmbeddingStore({str(tmp_path)!r}, 3)
"""
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MisuseError" in second.stderr and "in use by another run" in second.stderr
    store.close()
    EmbeddingStore(tmp_path, WIDTH).close()


def test_another_width_is_refused(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path, WIDTH).close()
    with pytest.raises(CheckpointError, match="of 3 numbers, not 4: remove it"):
        EmbeddingStore(tmp_path, 4)


def test_a_full_disk_costs_only_the_batch(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limit = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40, {resource.RLIM_INFINITY}))
"""
    code = f"""
import numpy as np
from st_embfilter.errors import OutputWriteError
from st_embfilter.encoding.embedding_store import EmbeddingStore
store = EmbeddingStore({str(tmp_path)!r}, 3)
{limit}
for number in (1, 2, 3, 4):
    key = np.array([number.to_bytes(16, "big")], "S16")
    try:
        store.append(key, np.full((1, 3), number, np.float32))
    except OutputWriteError as error:
        print(number, error)
        break
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Two keys of 16 bytes fit into 40.
    assert done.stdout.startswith("3 ") and "File too large" in done.stdout, done.stderr
    store = EmbeddingStore(tmp_path, WIDTH)
    assert store.read(keys([1, 2])).tolist() == [[1, 1, 1], [2, 2, 2]] and len(store) == 2
    store.close()
    assert issubclass(OutputWriteError, OSError)
