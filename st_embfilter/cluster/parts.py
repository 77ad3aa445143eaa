"""A corpus in Parquet files, cut into parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from st_embfilter.errors import DataError, MisuseError, VectorFileError
from st_embfilter.vectors.parquet_file import ParquetTable

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Part:
    """Rows of one file of a corpus, and the one file of the output that they become.

    Attributes:
        name: Of the output's file, relative to its folder: a function of the source and the rows.
        source: The corpus's file.
        first: The first row's number in it.
        rows: How many.
    """

    name: str
    source: str
    first: int
    rows: int


def _corpus_files(path: Path) -> list[Path]:
    """The Parquet files of a corpus, in their order.

    Raises:
        MisuseError: If there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MisuseError(f"{path}: there is no such file or folder")
    files = [
        file
        for file in sorted(path.rglob("*.parquet"))
        if not any(name.startswith((".", "_")) for name in file.relative_to(path).parts)
    ]
    if not files:
        raise MisuseError(f"{path} holds no .parquet file")
    return files


def cut(path: Path, part_rows: int, check: Callable[[Path, "pa.Schema"], None]) -> list[Part]:
    """Cut a corpus into parts, each of whole row groups, or a piece of a larger one.

    Args:
        path: A Parquet file or a folder of them.
        part_rows: The most rows of a part.
        check: Raises an error if a file's columns aren't right.

    Raises:
        MisuseError: If there is no such corpus.
        VectorFileError: If a file can't be read.
        DataError: If it holds no rows.
    """
    root = path if path.is_dir() else path.parent
    parts = []
    for file in _corpus_files(path):
        table = ParquetTable(file)
        check(file, table.schema)
        metadata = table.file.metadata
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        stem = file.relative_to(root).with_suffix("").as_posix()
        for first, rows in row_ranges(groups, part_rows):
            parts.append(Part(f"{stem}-{first:012d}.parquet", str(file), first, rows))
    if not parts:
        raise DataError(f"{path} holds no rows")
    return parts


def row_ranges(groups: list[int], most: int) -> Iterator[tuple[int, int]]:
    """First rows and numbers of rows: as many whole groups as fit, or pieces of one that doesn't.

    To begin inside a group is to read all of it that is in front.
    """
    first = joined = 0
    for rows in groups:
        if joined and joined + rows > most:
            yield first, joined
            first, joined = first + joined, 0
        joined += rows
        while joined > most:
            yield first, most
            first, joined = first + most, joined - most
    if joined:
        yield first, joined


def rows_of_part(table: ParquetTable, part: Part, size: int) -> "Iterator[pa.RecordBatch]":
    """A part's rows with all columns, at most ``size`` at once.

    Raises:
        VectorFileError: If the file can't be read, or has no longer so many rows.
    """
    left = part.rows
    for batch in table.batches(table.schema.names, part.first, size):
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if not left:
            return
    raise VectorFileError(f"{part.source} has changed: rows are missing at its end")
