"""A corpus in Parquet files, cut into parts."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tqdm import tqdm

from st_embfilter.cluster.corpus_file import CorpusFile
from st_embfilter.cluster.joined_table import AT_ONCE
from st_embfilter.cluster.parts import MANIFEST, UNFINISHED, Part
from st_embfilter.errors import DataError, MisuseError
from st_embfilter.row_blocks import in_order
from st_embfilter.stores import Place
from st_embfilter.vectors.parquet_file import ParquetTable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

# Of more files than these, not each is looked into.
MOST_LOOKED_INTO = 1000
# But so many, to know how many rows there are to a byte.
SAMPLE = 32
# At most so many files, and so many bytes, are joined.
JOINED_FILES, JOINED_BYTES = 256, 1 << 25

# Raises an error if a file's columns aren't right.
Check = Callable[[str, "pa.Schema"], None]
# Looks into a file: as it is now, and the rows of each of its row groups.
Look = Callable[[str, "pa.fs.FileInfo"], tuple[CorpusFile, list[int]]]


def cut(source: Place, part_rows: int, check: Check, job: str) -> list[Part]:
    """Cut a corpus into parts, each of whole row groups, of a piece of a larger one, or of files.

    In a corpus of very many files, neighbours are joined by what a listing says of them.

    Args:
        source: A Parquet file or a folder of them.
        part_rows: The most rows of a part; of one of several files, about so many.
        check: What a file's columns have to be.
        job: The digest of what is done to each part.

    Raises:
        MisuseError: If there is no such corpus.
        StoreError: If the store doesn't show it.
        VectorFileError: If a file can't be read.
        DataError: If it holds no rows, or is an output that isn't whole.
    """
    files = _corpus_files(source)
    look = partial(_look, source, check)
    small = _small_files(files, part_rows, look) if len(files) > MOST_LOOKED_INTO else {}
    parts = []
    for names in neighbours(small, part_rows):
        places = {name: source.inside(name) for name in names}
        joined = tuple(CorpusFile(str(at), at.version(files[name])) for name, at in places.items())
        parts.append(_part(job, names[0], joined, 0, None))
    others = [name for name in files if name not in small]
    looked = in_order((partial(look, name, files[name]) for name in others), AT_ONCE, 4 * AT_ONCE)
    shown = tqdm(looked, desc="Looking into files", total=len(others), unit="file", delay=2)
    for name, (file, groups) in zip(others, shown, strict=True):
        for first, rows in row_ranges(groups, part_rows):
            parts.append(_part(job, name or source.name, (file,), first, rows))
    if not parts:
        raise DataError(f"{source} holds no rows")
    return sorted(parts, key=lambda part: (part.files[0].path, part.first))


def _small_files(
    files: "Mapping[str, pa.fs.FileInfo]", part_rows: int, look: Look
) -> dict[str, tuple[int, int]]:
    """The files that fit into one part, with the rows that are expected of each, and its bytes."""
    some = list(files.items())[:: len(files) // SAMPLE]
    looked = in_order((partial(look, *each) for each in some), AT_ONCE, len(some))
    rows = sum(sum(groups) for _, groups in looked)
    # A power of two: or else one more file would have all parts made anew.
    rate = 2.0 ** math.ceil(math.log2(max(rows, 1) / sum(info.size for _, info in some)))
    expected = {name: (math.ceil(rate * info.size), info.size) for name, info in files.items()}
    return {
        name: (rows, size)
        for name, (rows, size) in expected.items()
        if rows <= part_rows and size <= JOINED_BYTES
    }


def neighbours(files: Mapping[str, tuple[int, int]], most_rows: int) -> Iterator[list[str]]:
    """Files of one folder that become one part together.

    Args:
        files: The rows and bytes of each, by name, in order.
        most_rows: Of a part.
    """
    joined, rows, size = list[str](), 0, 0
    for name, (more_rows, more_bytes) in files.items():
        full = (
            rows + more_rows > most_rows
            or size + more_bytes > JOINED_BYTES
            or len(joined) == JOINED_FILES
        )
        if joined and (full or _folder(name) != _folder(joined[0])):
            yield joined
            joined, rows, size = [], 0, 0
        joined.append(name)
        rows, size = rows + more_rows, size + more_bytes
    if joined:
        yield joined


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _look(
    source: Place, check: Check, name: str, info: "pa.fs.FileInfo"
) -> tuple[CorpusFile, list[int]]:
    place = source.inside(name) if name else source
    with place.open() as file:
        version = place.version(info, file)
        table = ParquetTable(str(place), file)
        metadata = table.file.metadata
    check(str(place), table.schema)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return CorpusFile(str(place), version), groups


def _part(job: str, name: str, files: tuple[CorpusFile, ...], first: int, rows: int | None) -> Part:
    made_of = json.dumps([job, [[file.path, file.version] for file in files], first, rows])
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    stem = name.removesuffix(".parquet")
    return Part(f"{stem}-{first:012d}-{digest}.parquet", files, first, rows)


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
