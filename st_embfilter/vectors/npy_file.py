"""Vectors in ``.npy`` files, read in blocks with plain reads.

Not through a memory map: its pages count as the process's own, a file that is cut off meanwhile
kills the process, and so does a full disk.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import VectorFileError
from st_embfilter.vectors.job import Filtered


class NpyVectors:
    """The rows of a ``.npy`` file of floats.

    Args:
        path: The file.

    Raises:
        VectorFileError: If it is corrupt, truncated, or holds anything but rows of floats.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.notes, self.missing = path, list[str](), 0
        try:
            # The map is only made to have numpy parse the header and compare the sizes.
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise VectorFileError(f"{path} can't be read: {_readable(error)}") from error
        if not isinstance(array, np.memmap):
            raise VectorFileError(f"{path} is not a .npy file of one array")
        _check_rows(path, array)
        self.rows, self.width = array.shape
        self.dtype, self.offset = array.dtype, array.offset
        self.by_column = array.flags.f_contiguous and not array.flags.c_contiguous

    def blocks(self, first: int, size: int) -> Iterator[NDArray[Any]]:
        """The rows from ``first`` on, in blocks of ``size`` rows."""
        with self.path.open("rb") as file:
            for start in range(first, self.rows, size):
                count = min(size, self.rows - start)
                yield (
                    self.columns(file, start, count)
                    if self.by_column
                    else self.block(file, start, count)
                )

    def block(self, file: BinaryIO, start: int, count: int) -> NDArray[Any]:
        """Rows that lie one behind the other."""
        block = np.empty((count, self.width), self.dtype)
        place = self.offset + start * self.width * self.dtype.itemsize
        file.seek(place)
        self._fill(file, block)
        if hasattr(os, "posix_fadvise"):
            # A large input would push all else out of the page cache. And a page that was just
            # given up costs the next block less than one that lay fallow.
            os.posix_fadvise(file.fileno(), 0, place, os.POSIX_FADV_DONTNEED)
        return block

    def columns(self, file: BinaryIO, start: int, count: int) -> NDArray[Any]:
        """The same of an array in Fortran's order: a piece of every column."""
        block: NDArray[Any] = np.empty((self.width, count), self.dtype)
        for number, column in enumerate(block):
            file.seek(self.offset + (number * self.rows + start) * self.dtype.itemsize)
            self._fill(file, column)
        rows: NDArray[Any] = block.T
        return rows

    def _fill(self, file: BinaryIO, array: NDArray[Any]) -> None:
        try:
            count = file.readinto(array)  # type: ignore[attr-defined]
        except OSError as error:
            raise VectorFileError(f"{self.path} can't be read: {error}") from error
        if count != array.nbytes:
            raise VectorFileError(f"{self.path} ends early: it was cut off while it was read")

    def write(self, out: Path, filtered: Filtered, dropped: bool, facts: dict[str, Any]) -> None:
        """Make the file of filtered rows the output: it is one already."""
        os.rename(filtered.rows, out)


def _check_rows(path: Path, array: NDArray[Any]) -> None:
    if array.ndim != 2:
        raise VectorFileError(
            f"{path} holds an array of shape {array.shape}: vectors are rows, (n, d)"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise VectorFileError(
            f"{path} holds {array.dtype}: raw embeddings are float16, float32 or float64"
        )


def _readable(error: Exception) -> str:
    """Numpy's words where they help, else ours."""
    text = str(error)
    if "Object arrays" in text or "Python objects" in text:
        return "it holds Python objects, which would have to be unpickled: save plain floats"
    if "pickle" in text:
        return "it is not a .npy file"
    if "mmap length is greater" in text:
        return "it is truncated: it has fewer bytes than its header says. Fetch it again"
    if "empty file" in text or "No data left" in text or not text:
        return "it is empty"
    return text
