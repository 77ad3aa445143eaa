"""A corpus in Parquet files, cut into parts."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tqdm import tqdm

from st_embfilter.errors import DataError, MisuseError, VectorFileError
from st_embfilter.row_blocks import in_order
from st_embfilter.stores import Place
from st_embfilter.vectors.parquet_file import ParquetTable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

# In an output's folder, beside its parts. Hidden, as not every reader of a folder of Parquet passes
# over other files. The manifest is there when all parts are, and the other until then.
MANIFEST, UNFINISHED = ".embfilter.json", ".embfilter.unfinished.json"
PART_NAME = re.compile(r"-\d{12}-[0-9a-f]{16}\.parquet$")
# Files looked into at the same time: an object store takes its time to answer, not ours.
LOOKERS = 16

# Raises an error if a file's columns aren't right.
Check = Callable[[str, "pa.Schema"], None]


@dataclass(frozen=True)
class Part:
    """Rows of one file of a corpus, and the one file of the output that they become.

    Attributes:
        name: Of the output's file, relative to its folder. It says what the part is made of: the
            file, the rows, and in a digest that file's version and what is done to it.
        source: The corpus's file.
        version: Tells that file's content from an earlier one's.
        first: The first row's number in it.
        rows: How many.
    """

    name: str
    source: str
    version: str
    first: int
    rows: int

    def opened(self) -> "pa.NativeFile":
        """The corpus's file, if it is still the one that the part was cut from.

        Raises:
            StoreError: If it is gone, or may not be read.
            VectorFileError: If it is another one.
        """
        place = Place.of(self.source)
        file = place.open()
        if place.version(file) != self.version:
            raise VectorFileError(
                f"{place} has changed since the job began: the same command looks at it anew"
            )
        return file

    def table(self) -> ParquetTable:
        """The corpus's file, to be read; raises as :meth:`opened`."""
        return ParquetTable(self.source, self.opened())


def cut(source: Place, part_rows: int, check: Check, job: str) -> list[Part]:
    """Cut a corpus into parts, each of whole row groups, or a piece of a larger one.

    Args:
        source: A Parquet file or a folder of them.
        part_rows: The most rows of a part.
        check: What a file's columns have to be.
        job: The digest of what is done to each part.

    Raises:
        MisuseError: If there is no such corpus.
        StoreError: If the store doesn't show it.
        VectorFileError: If a file can't be read.
        DataError: If it holds no rows, or is an output that isn't whole.
    """
    files = _corpus_files(source)
    looks = (
        partial(_cut_file, source, name, info, part_rows, check, job)
        for name, info in files.items()
    )
    found = in_order(looks, LOOKERS, 4 * LOOKERS)
    shown = tqdm(found, desc="Looking into files", total=len(files), unit="file", delay=2)
    parts = [part for of_file in shown for part in of_file]
    if not parts:
        raise DataError(f"{source} holds no rows")
    return parts


def _corpus_files(source: Place) -> "dict[str, pa.fs.FileInfo]":
    """A corpus's Parquet files by name, in their order; of a single file the name is empty."""
    listed = source.files()
    if not listed:
        info = source.info()
        if info.is_file:
            return {"": info}
        raise MisuseError(f"{source}: there is no such file or folder, or it is empty")
    _check_whole(source, listed)
    files = {
        name: info
        for name, info in listed.items()
        if name.endswith(".parquet")
        and not any(piece.startswith((".", "_")) for piece in PurePosixPath(name).parts)
    }
    if not files:
        raise MisuseError(f"{source} holds no .parquet file")
    return files


def _check_whole(source: Place, names: "dict[str, pa.fs.FileInfo]") -> None:
    """Raise :class:`DataError` if some of the files are an output that isn't whole."""
    for name in names:
        folder, _, last = name.rpartition("/")
        manifest = f"{folder}/{MANIFEST}" if folder else MANIFEST
        if last == UNFINISHED and manifest not in names:
            raise DataError(
                f"{source.inside(folder) if folder else source} is not whole: the job that writes "
                f"it hasn't ended, or was stopped. It is whole when {MANIFEST} is in it"
            )


def _cut_file(
    source: Place, name: str, info: "pa.fs.FileInfo", part_rows: int, check: Check, job: str
) -> list[Part]:
    place = source.inside(name) if name else source
    with place.open() as file:
        version = place.version(file, info)
        table = ParquetTable(str(place), file)
        metadata = table.file.metadata
    check(str(place), table.schema)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    stem = (name or place.name).removesuffix(".parquet")
    parts = []
    for first, rows in row_ranges(groups, part_rows):
        made_of = json.dumps([job, str(place), version, first, rows])
        digest = hashlib.sha256(made_of.encode()).hexdigest()[:16]
        parts.append(
            Part(f"{stem}-{first:012d}-{digest}.parquet", str(place), version, first, rows)
        )
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
    # Larger batches are read from the rows behind the part as well.
    for batch in table.batches(table.schema.names, part.first, min(size, part.rows)):
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if not left:
            return
    raise VectorFileError(f"{part.source} has changed: rows are missing at its end")
