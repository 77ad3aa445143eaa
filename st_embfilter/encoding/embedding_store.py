"""Embeddings on disk, found again by their text."""

import json
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from st_embfilter.errors import CheckpointError, MisuseError, OutputWriteError
from st_embfilter.files import replace_file

KEY_BYTES = 16
Keys = NDArray[np.bytes_]


class EmbeddingStore:
    """A growing table of embeddings, each under a key of 16 bytes.

    Two files grow at their ends, the vectors' before the keys', so a kill at any moment costs at
    most the batch that was being written. In memory there are 24 bytes an embedding.

    Args:
        folder: Made if it isn't there.
        width: Numbers an embedding.

    Raises:
        MisuseError: If another process has it open.
        CheckpointError: If it holds embeddings of another width.
        OutputWriteError: If it can't be written.
    """

    def __init__(self, folder: str | Path, width: int) -> None:
        self.folder = Path(folder)
        self.width = width
        self._vectors = self.folder / "vectors.f32"
        self._key_file = self.folder / "keys.bin"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / ".lock")
            self._lock.acquire(blocking=False)
            self._check_width()
            self._vectors.touch()
            self._key_file.touch()
            self._drop_torn_end()
        except Timeout as error:
            raise MisuseError(f"{self.folder} is in use by another run: wait for it") from error
        except OSError as error:
            raise OutputWriteError(f"{self.folder} can't be written: {error}") from error
        stored = np.fromfile(self._key_file, f"S{KEY_BYTES}")
        order = np.argsort(stored, kind="stable")
        # Sorted, so that a key is found by bisection, with the row of each beside it.
        self._keys: Keys = stored[order]
        self._rows = order.astype(np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def close(self) -> None:
        """Let other processes open it."""
        self._lock.release()

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of the keys ``(n,)`` are here."""
        return self._find(keys) >= 0

    def append(self, keys: Keys, vectors: NDArray[np.float32]) -> None:
        """Add embeddings ``(n, width)`` under new keys, to be found after :meth:`index`.

        Raises:
            OutputWriteError: If the disk is full. What was there before stays.
        """
        try:
            for path, content in ((self._vectors, vectors), (self._key_file, keys)):
                with path.open("ab") as file:
                    file.write(np.ascontiguousarray(content).tobytes())
        except OSError as error:
            self._drop_torn_end()
            raise OutputWriteError(f"{self.folder} can't be written: {error}") from error

    def index(self) -> None:
        """Take up what was appended since the last time."""
        known = len(self)
        fresh = np.fromfile(self._key_file, f"S{KEY_BYTES}", offset=known * KEY_BYTES)
        order = np.argsort(fresh, kind="stable")
        places = np.searchsorted(self._keys, fresh[order])
        self._keys = np.insert(self._keys, places, fresh[order])
        self._rows = np.insert(self._rows, places, known + order)

    def read(self, keys: Keys) -> NDArray[np.float32]:
        """The embeddings ``(n, width)`` of keys that are here."""
        if not len(keys):
            return np.empty((0, self.width), np.float32)
        rows = self._find(keys)
        assert rows.min() >= 0
        # Opened for this call alone: what it has touched would stay in memory.
        table = np.memmap(self._vectors, np.float32, "r", shape=(len(self), self.width))
        return np.asarray(table[rows])

    def _find(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each key, -1 where there is none."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return np.where(self._keys[places] == keys, self._rows[places], -1)

    def _check_width(self) -> None:
        header = self.folder / "store.json"
        if not header.exists():
            with replace_file(header) as fresh:
                fresh.write_text(json.dumps({"width": self.width, "dtype": "float32"}))
        found = json.loads(header.read_text(encoding="utf-8")).get("width")
        if found != self.width:
            raise CheckpointError(
                f"{self.folder} holds embeddings of {found} numbers, not {self.width}: remove it"
            )

    def _drop_torn_end(self) -> None:
        """Cut both files to the embeddings that are whole in both."""
        row = 4 * self.width
        whole = min(self._vectors.stat().st_size // row, self._key_file.stat().st_size // KEY_BYTES)
        for path, size in ((self._vectors, row), (self._key_file, KEY_BYTES)):
            if path.stat().st_size != whole * size:
                with path.open("r+b") as file:
                    file.truncate(whole * size)
