"""A ``.npy`` file that grows row by row, and goes on where a run that was stopped has left it.

Not through a memory map: there a full disk kills the process, and the pages count as its own.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowFile:
    """A file of rows, open for writing at its end, in a ``with`` block.

    Its header says 0 rows until :meth:`finish` writes it anew: it is as long for any number.

    Args:
        path: The file. It is made if it isn't there.
        dtype: Of the numbers.
        width: How many numbers a row has.
        rows: How many rows are there already; what is behind them is cut off.

    Raises:
        OSError: If it can't be written; so do all methods.
    """

    def __init__(self, path: Path, dtype: "np.dtype[Any]", width: int, rows: int) -> None:
        path.touch()
        self.width = width
        self._descr = np.lib.format.dtype_to_descr(dtype)
        self.file = path.open("r+b")
        self._write_header(0)
        self.file.truncate(self.file.tell() + rows * width * dtype.itemsize)
        self.file.seek(0, os.SEEK_END)

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows ``(n, width)``."""
        self.file.write(np.ascontiguousarray(rows).data)

    def sync(self) -> None:
        """Have the rows on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def finish(self, rows: int) -> None:
        """Say in the header how many rows there are."""
        self._write_header(rows)
        self.file.seek(0, os.SEEK_END)

    def _write_header(self, rows: int) -> None:
        self.file.seek(0)
        header = {
            "descr": self._descr,
            "fortran_order": False,
            "shape": (rows, self.width),
        }
        np.lib.format.write_array_header_1_0(self.file, header)
