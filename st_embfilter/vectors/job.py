"""Stored vectors through the filter, into a ``.npy`` file beside the output.

The part that all formats share, and all that takes long: a run that was stopped goes on here where
it was. What becomes of the filtered rows is the format's.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from st_embfilter.errors import NonFiniteError
from st_embfilter.files import remove
from st_embfilter.job_state import JobState
from st_embfilter.row_blocks import ahead, in_order, non_finite_rows
from st_embfilter.row_file import RowFile
from st_embfilter.vectors.precision import (
    RANGED,
    Precision,
    Stored,
    convert,
    stored_dtype,
    stored_width,
)
from st_embfilter.vectors.progress import Progress
from st_embfilter.vectors.vector_filter import VectorFilter, normalized

NanPolicy = Literal["fail", "keep", "drop"]
# Read at once; a few of these for every core are in memory.
BLOCK_BYTES = 4_000_000
# Of wide vectors as well: a product of few rows mostly reads the filter.
BLOCK_ROWS = 512
# So much work a kill or a power cut may cost.
CHECKPOINT_BYTES = 128_000_000
SHOWN_ROWS = 5


class StoredVectors(Protocol):
    """Where vectors come from: a file of some format."""

    rows: int
    width: int

    @property
    def path(self) -> Path | str:
        """Where it is, for messages too."""

    def blocks(self, first: int, size: int) -> Iterator[NDArray[Any]]:
        """The rows from ``first`` on, in blocks of exactly ``size`` rows but for the last."""


@dataclass(frozen=True)
class Settings:
    """How vectors are filtered.

    Attributes:
        precision: What the filtered vectors are stored in.
        normalize: Scale every filtered vector to length 1.
        nan: What becomes of rows with NaN or infinity.
    """

    precision: Precision = "float32"
    normalize: bool = False
    nan: NanPolicy = "fail"


class Filtered(NamedTuple):
    """What the input became.

    Attributes:
        rows: A ``.npy`` file of filtered rows, without those that were dropped.
        bad: The numbers of the input's rows that hold NaN or infinity, ascending.
        ranges: Of int8 and uint8, ``(2, k)`` float32.
    """

    rows: Path
    bad: NDArray[np.int64]
    ranges: NDArray[np.float32] | None


class Block(NamedTuple):
    """A block of the input, filtered."""

    read: int
    bad: NDArray[np.int64]
    rows: Stored


class FilterJob:
    """One input through one filter, resumably.

    Args:
        vectors: The input.
        vector_filter: For vectors of its width.
        settings: How.
        out: The output: the work lies in hidden files beside it.
        source: What tells this input's content from every other's, as its size and time; JSON.
    """

    def __init__(
        self,
        vectors: StoredVectors,
        vector_filter: VectorFilter,
        settings: Settings,
        out: Path,
        source: Any,
    ) -> None:
        self.vectors, self.filter, self.settings, self.out = vectors, vector_filter, settings, out
        identity = json.dumps([str(Path(vectors.path).resolve()), source, asdict(settings)])
        digest = hashlib.sha256(identity.encode())
        digest.update(repr(vector_filter.matrix.shape).encode() + vector_filter.matrix.tobytes())
        self.rows, self.bad = self.hidden(out, "rows"), self.hidden(out, "bad")
        self.state = JobState(self.hidden(out, "progress"), digest.hexdigest())
        self.dtype = stored_dtype(settings.precision)
        self.row_width = stored_width(settings.precision, vector_filter.dimensions)
        # Products of blocks of one size, so that a run which was stopped gives the same bits.
        self.size = max(BLOCK_ROWS, BLOCK_BYTES // (4 * vectors.width))
        # Rows with NaN or infinity where there are to be none: how many, and the first.
        self.refused = 0
        self.first_refused: list[int] = []

    @staticmethod
    def hidden(out: Path, part: str) -> Path:
        """One of the hidden files beside an output."""
        return out.with_name(f".{out.name}.{part}")

    def run(self) -> Filtered:
        """Filter all rows, or those that an earlier run has left.

        Raises:
            NonFiniteError: If rows hold NaN or infinity, and they are not to be kept or dropped.
            MisuseError: If a number is too large for float16.
            VectorFileError: If the input can't be read to its end.
            OSError: If the output can't be written. What was done is kept.
        """
        progress = self.left() or self.start()
        if progress.ranging:
            self._find_ranges(progress)
            progress = Progress(False, low=progress.low, high=progress.high)
            progress.save(self.state)
        self._write_rows(progress)
        return Filtered(self.rows, np.fromfile(self.bad, np.int64), progress.ranges)

    def left(self) -> Progress | None:
        """What an earlier run of the same job has left."""
        progress = Progress.load(self.state)
        return progress if self.rows.is_file() and self.bad.is_file() else None

    def start(self) -> Progress:
        """Begin anew."""
        # It would speak of rows that this job is about to write over.
        self.clean_up()
        self.rows.parent.mkdir(parents=True, exist_ok=True)
        self.rows.touch()
        self.bad.touch()
        return Progress(self.settings.precision in RANGED)

    def clean_up(self) -> None:
        """Remove the hidden files."""
        self.state.remove()
        for path in (self.rows, self.bad):
            remove(path)

    def _find_ranges(self, progress: Progress) -> None:
        """The first pass of int8: the smallest and largest value of every dimension."""
        low = np.array(progress.low or np.inf, np.float32)
        high = np.array(progress.high or -np.inf, np.float32)
        unsaved = 0
        for block in self._filtered(progress, "Finding the ranges"):
            if len(block.rows):
                low = np.minimum(low, block.rows.min(axis=0))
                high = np.maximum(high, block.rows.max(axis=0))
            progress.read += block.read
            unsaved += block.read * self.vectors.width * 4
            if unsaved >= CHECKPOINT_BYTES and low.ndim:
                progress.low, progress.high = low.tolist(), high.tolist()
                progress.save(self.state)
                unsaved = 0
        self._check_refused()
        self._check_left(low.ndim)
        progress.low, progress.high = low.tolist(), high.tolist()

    def _write_rows(self, progress: Progress) -> None:
        """Write the filtered rows, and the numbers of those that hold NaN or infinity."""
        pending: Future[None] | None = None
        unsaved, done = 0, self._written(progress)
        with (
            RowFile(self.rows, self.dtype, self.row_width, done) as rows,
            self.bad.open("r+b") as bad,
            ThreadPoolExecutor(1) as pool,
        ):
            bad.truncate(progress.bad * 8)
            bad.seek(0, os.SEEK_END)
            for block in self._filtered(progress, "Filtering"):
                rows.append(block.rows)
                bad.write(block.bad.tobytes())
                progress.read += block.read
                progress.bad += len(block.bad)
                unsaved += block.rows.nbytes
                if unsaved >= CHECKPOINT_BYTES and not self.refused:
                    if pending is not None:
                        pending.result()
                    # The disk works while the next rows are computed.
                    pending = pool.submit(self.checkpoint, rows, bad, replace(progress))
                    unsaved = 0
            if pending is not None:
                pending.result()
            self._check_refused()
            self._check_left(self._written(progress))
            rows.finish(self._written(progress))
            self.checkpoint(rows, bad, progress)

    def _filtered(self, progress: Progress, describe: str) -> Iterator[Block]:
        """The rest of the input, filtered; with a progress bar."""
        source = self.vectors.blocks(progress.read, self.size)
        numbers = range(progress.read, self.vectors.rows, self.size)
        # One thread reads, some compute, the caller's writes; all without Python's lock.
        work = (
            partial(self.filter_block, block, first, progress)
            for first, block in zip(numbers, ahead(source, 4), strict=True)
        )
        total = self.vectors.rows
        # One more than cores, and some blocks more: there is work while the disk takes its time.
        workers = (os.cpu_count() or 1) + 1
        with (
            # A product on several cores ends when its last part does: with other work on the
            # machine, most of the time is spent waiting.
            threadpool_limits(1, "blas"),
            tqdm(total=total, initial=progress.read, desc=describe, unit="row") as bar,
        ):
            for block in in_order(work, workers, workers + 6):
                if self.settings.nan == "fail":
                    self.refused += len(block.bad)
                    self.first_refused += block.bad[: SHOWN_ROWS - len(self.first_refused)].tolist()
                yield block
                bar.update(block.read)

    def filter_block(self, block: NDArray[Any], first: int, progress: Progress) -> Block:
        """One block through the filter, and in the precision of the output."""
        settings = self.settings
        with np.errstate(over="ignore"):
            raw = block.astype(np.float32, copy=False)
        bad = non_finite_rows(raw)
        if self.refused or (settings.nan == "fail" and len(bad)):
            # There will be no output: the rest is only looked at.
            return Block(len(raw), bad + first, np.empty((0, self.row_width), np.float32))
        rows = self.filter.apply(raw)
        if settings.normalize:
            rows = normalized(rows)
        if len(bad) and settings.nan == "drop":
            rows = np.delete(rows, bad, axis=0)
        elif len(bad):
            rows[bad] = np.nan
        stored = rows if progress.ranging else convert(rows, settings.precision, progress.ranges)
        return Block(len(raw), bad + first, stored)

    def _check_refused(self) -> None:
        if not self.refused:
            return
        shown = ", ".join(map(str, self.first_refused))
        more = ", …" if self.refused > len(self.first_refused) else ""
        raise NonFiniteError(
            f"{self.vectors.path}: {self.refused:,} of {self.vectors.rows:,} rows hold NaN or "
            f"infinity: {shown}{more} (counted from 0). --nan drop leaves such rows out, "
            f"--nan keep makes them rows of NaN"
        )

    def _check_left(self, rows: int) -> None:
        if rows == 0:
            raise NonFiniteError(f"{self.vectors.path}: all rows hold NaN or infinity")

    def _written(self, progress: Progress) -> int:
        """How many rows of the output are done."""
        return progress.read - (progress.bad if self.settings.nan == "drop" else 0)

    def checkpoint(self, rows: RowFile, bad: BinaryIO, progress: Progress) -> None:
        """Have the rows on the disk, and then say so."""
        rows.sync()
        bad.flush()
        os.fsync(bad.fileno())
        progress.save(self.state)
