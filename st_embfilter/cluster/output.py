"""The output of a corpus: a folder of parts that appears whole.

Which engine has the parts written, and by how many workers, is not known here.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from st_embfilter.cluster.parts import Part
from st_embfilter.errors import ClusterError, OutputWriteError
from st_embfilter.files import check_absent, remove, rename_to_absent, sync, writing
from st_embfilter.job_state import JobState
from st_embfilter.vectors.parquet_file import ParquetTable

if TYPE_CHECKING:
    import pyarrow as pa

# Hidden, as not every reader of a folder of Parquet passes over other files.
MANIFEST = ".embfilter.json"
# One that its worker doesn't survive, for want of memory say, isn't tried for ever.
TRIES = 4
KEPT = ". The parts that are done are kept: the same command goes on there"

# What a worker does with a part: from its file to the rows that are written.
Convert = Callable[[ParquetTable, Part], "pa.RecordBatchReader"]


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
        self.out = out
        self.work = out.with_name(f".{out.name}.partial")
        self.parts, self.writing = self.work / "parts", self.work / "writing"
        self.state = JobState(self.work / "job.json", job)

    def begin(self) -> set[str]:
        """Make the folders, and return the names of the parts that an earlier run has left.

        What another job has left is removed.

        Raises:
            OutputWriteError: If they can't be made.
        """
        with writing(self.out):
            if self.state.left() is None:
                remove(self.work)
            # A worker of a run that was stopped may be writing its last part at this moment.
            shutil.rmtree(self.writing, ignore_errors=True)
            self.parts.mkdir(parents=True, exist_ok=True)
            self.writing.mkdir(exist_ok=True)
            self.state.save({})
        return {file.relative_to(self.parts).as_posix() for file in self.parts.rglob("*.parquet")}

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
            with writing(path, KEPT):
                fresh.touch()
                table = ParquetTable(Path(part.source))
                table.write(fresh, convert(table, part))
                sync(fresh)
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(fresh, path)
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
        with writing(self.out):
            (self.parts / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            sync(self.parts / MANIFEST)
            rename_to_absent(self.parts, self.out)
            shutil.rmtree(self.work, ignore_errors=True)
        return manifest
