"""A part: rows of a corpus in Parquet files, and the one file of the output that they become."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from st_embfilter.cluster.corpus_file import CorpusFile
from st_embfilter.cluster.joined_table import JoinedTable
from st_embfilter.errors import VectorFileError
from st_embfilter.vectors.parquet_file import ParquetTable

if TYPE_CHECKING:
    import pyarrow as pa

# In an output's folder, beside its parts. Hidden, as not every reader of a folder of Parquet passes
# over other files. The manifest is there when all parts are, and the other until then.
MANIFEST, UNFINISHED = ".embfilter.json", ".embfilter.unfinished.json"
PART_NAME = re.compile(r"-\d{12}-[0-9a-f]{16}\.parquet$")


@dataclass(frozen=True)
class Part:
    """Rows of one file of a corpus, or all rows of several small ones.

    Attributes:
        name: Of the output's file, relative to its folder. It says what the part is made of: the
            first file, the first row, and in a digest the files' versions, the rows, and what is
            done to them.
        files: The corpus's.
        first: The first row's number in the file.
        rows: How many. None, where files are joined: nobody has looked into them.
    """

    name: str
    files: tuple[CorpusFile, ...]
    first: int
    rows: int | None

    @property
    def source(self) -> str:
        """The file it is cut from, or the files, in words."""
        path = self.files[0].path
        return path if self.rows is not None else f"{len(self.files)} files from {path} on"

    def __str__(self) -> str:
        if self.rows is None:
            return self.source
        return f"{self.rows} rows of {self.source} from row {self.first} on"

    def table(self) -> ParquetTable | JoinedTable:
        """Its file, or files, to be read.

        Raises:
            StoreError: If one is gone, or may not be read.
            VectorFileError: If one is another than it was, or can't be read.
        """
        if self.rows is None:
            return JoinedTable(self.files)
        [file] = self.files
        return ParquetTable(file.path, file.opened())

    def check_unchanged(self) -> None:
        """Raise as :meth:`table` does, if what was read is perhaps a mixture."""
        if self.rows is not None:
            self.files[0].opened()


def rows_of_part(
    table: ParquetTable | JoinedTable, part: Part, size: int
) -> "Iterator[pa.RecordBatch]":
    """A part's rows with all columns, at most ``size`` at once.

    Raises:
        VectorFileError: If the file can't be read, or has no longer so many rows.
    """
    left = table.rows if part.rows is None else part.rows
    if not left:
        return
    # Larger batches are read from the rows behind the part as well.
    for batch in table.batches(table.schema.names, part.first, min(size, left)):
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if not left:
            return
    raise VectorFileError(f"{part}: the file has changed, rows are missing at its end")


def origin(table: ParquetTable | JoinedTable, part: Part, row: int) -> tuple[str, int]:
    """The corpus's file that one of a part's rows is from, and the row's number there."""
    if isinstance(table, JoinedTable):
        return table.origin(row)
    return part.files[0].path, part.first + row
