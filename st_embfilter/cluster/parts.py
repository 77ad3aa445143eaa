"""A corpus in Parquet files, cut into parts, and an output folder of parts that appears whole.

Which engine has the parts written, and by how many workers, is not known here.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from st_embfilter.errors import (
    ClusterError,
    DataError,
    EmbFilterError,
    MisuseError,
    OutputWriteError,
    VectorFileError,
)
from st_embfilter.files import check_absent, remove, replace_file
from st_embfilter.vectors.tables import ParquetTable
from st_embfilter.vectors.transform import sync

if TYPE_CHECKING:
    import pyarrow as pa

# Hidden, as not every reader of a folder of Parquet passes over other files.
MANIFEST = ".embfilter.json"
# One that its worker doesn't survive, for want of memory say, isn't tried for ever.
TRIES = 4


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


# What a worker does with a part: from its file to the rows that are written.
Convert = Callable[[ParquetTable, Part], "pa.RecordBatchReader"]


def corpus_files(path: Path) -> list[Path]:
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
    for file in corpus_files(path):
        table = ParquetTable(file)
        check(file, table.schema)
        metadata = table.file.metadata
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        stem = file.relative_to(root).with_suffix("").as_posix()
        for first, rows in ranges(groups, part_rows):
            parts.append(Part(f"{stem}-{first:012d}.parquet", str(file), first, rows))
    if not parts:
        raise DataError(f"{path} holds no rows")
    return parts


def ranges(groups: list[int], most: int) -> Iterator[tuple[int, int]]:
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


def read_rows(table: ParquetTable, part: Part, size: int) -> "Iterator[pa.RecordBatch]":
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


class Output:
    """A folder of parts, which lie in a hidden neighbour of it until they are all there.

    Any number of workers on any machine of a file system may write parts, the same one too: each
    writes a file of its own, and renames it. The last one stays, and is equal to the others.

    Args:
        out: The folder, which must not exist.
        job: The digest of all that the output depends on.

    Raises:
        OutputExistsError: If ``out`` exists.
    """

    def __init__(self, out: Path, job: str) -> None:
        check_absent(out)
        self.out, self.job = out, job
        self.work = out.with_name(f".{out.name}.partial")
        self.parts, self.writing = self.work / "parts", self.work / "writing"
        self.state = self.work / "job.json"

    def begin(self) -> set[str]:
        """Make the folders, and return the names of the parts that an earlier run has left.

        What another job has left is removed.

        Raises:
            OutputWriteError: If they can't be made.
        """
        try:
            if self.left() != self.job:
                remove(self.work)
            # A worker of a run that was stopped may be writing its last part at this moment.
            shutil.rmtree(self.writing, ignore_errors=True)
            self.parts.mkdir(parents=True, exist_ok=True)
            self.writing.mkdir(exist_ok=True)
            with replace_file(self.state) as fresh:
                fresh.write_text(json.dumps(self.job))
        except OSError as error:
            raise OutputWriteError(f"{self.out} could not be written: {error}") from error
        return {file.relative_to(self.parts).as_posix() for file in self.parts.rglob("*.parquet")}

    def left(self) -> Any:
        """The digest of the job that has left its work."""
        try:
            return json.loads(self.state.read_text())
        except (OSError, ValueError):
            return None

    def write(self, part: Part, convert: Convert) -> None:
        """Make a part, unless it is there.

        Raises:
            EmbFilterError: What ``convert`` raises.
            OutputWriteError: If it can't be written.
            ClusterError: If some workers that began it have ended.
        """
        path = self.parts / part.name
        if path.exists():
            return
        name = hashlib.sha256(part.name.encode()).hexdigest()[:16]
        begun = len(list(self.writing.glob(f"{name}-*")))
        if begun >= TRIES:
            raise ClusterError(
                f"{begun} workers ended at {part.rows} rows of {part.source} from row {part.first} "
                f"on, for want of memory perhaps: the same command goes on there, with fewer "
                f"workers or a smaller batch size"
            )
        fresh = self.writing / f"{name}-{uuid4().hex}.parquet"
        try:
            fresh.touch()
            table = ParquetTable(Path(part.source))
            table.write(fresh, convert(table, part))
            sync(fresh)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh, path)
        except EmbFilterError:
            raise
        except OSError as error:
            raise OutputWriteError(
                f"{path} could not be written: {error}. The parts that are done are kept: the "
                f"same command goes on there"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def publish(self, parts: list[Part], facts: dict[str, Any]) -> dict[str, Any]:
        """Give the folder its name, with a manifest in it, which is returned.

        Raises:
            OutputWriteError: If a part isn't there, or the folder can't be renamed.
            OutputExistsError: If there is something of its name by now.
        """
        missing = [part.name for part in parts if not (self.parts / part.name).is_file()]
        if missing:
            raise OutputWriteError(
                f"{self.out}: {len(missing)} of {len(parts)} parts are not here, as {missing[0]}, "
                f"though workers wrote them: it must be on a file system that all machines share"
            )
        manifest = {
            **facts,
            "rows": sum(part.rows for part in parts),
            "parts": [asdict(part) for part in parts],
        }
        try:
            (self.parts / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            sync(self.parts / MANIFEST)
            # os.rename would replace an empty folder without a word.
            check_absent(self.out)
            os.rename(self.parts, self.out)
            shutil.rmtree(self.work, ignore_errors=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise OutputWriteError(f"{self.out} could not be written: {error}") from error
        return manifest
