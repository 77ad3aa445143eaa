"""The output of a corpus: a folder of parts, whole when its manifest is there.

Which engine has the parts written, and by how many workers, is not known here.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from st_embfilter.cluster.joined_table import AT_ONCE, JoinedTable
from st_embfilter.cluster.parts import MANIFEST, PART_NAME, UNFINISHED, Part
from st_embfilter.errors import ClusterError, OutputExistsError, OutputWriteError, StoreError
from st_embfilter.files import writing
from st_embfilter.row_blocks import in_order
from st_embfilter.stores import PARTIAL, Place
from st_embfilter.vectors.parquet_file import ParquetTable

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = ". The parts that are done are kept: the same command goes on there"

TAKEN = "{}: another run has ended this output meanwhile, or taken it for another command"

# What a worker does with a part: from its file, or files, to the rows that are written.
Convert = Callable[[ParquetTable | JoinedTable, Part], "pa.RecordBatchReader"]


class Output:
    """A folder of parts, each put there whole under a name that says what it is made of.

    So any number of workers, and of runs of one command, may write the same part: what is there in
    the end is one of several equal ones. Nothing is renamed but, on a disk, a part.

    Args:
        place: The folder.
        command: The digest of all that the output depends on but the content of its input.
    """

    def __init__(self, place: Place, command: str) -> None:
        self.place, self.command = place, command
        self.manifest, self.unfinished = place.inside(MANIFEST), place.inside(UNFINISHED)

    def left(self) -> set[str]:
        """The names of the parts that earlier runs of the command have left.

        Raises:
            OutputExistsError: If the folder is whole, or something else is in it.
            StoreError: If the store doesn't show it.
        """
        names = set(self.place.files())
        if not names and self.place.is_file():
            raise OutputExistsError(f"{self.place} already exists: choose another output")
        if MANIFEST in names:
            raise OutputExistsError(
                f"{self.place} already exists, and is whole: remove it, or choose another output"
            )
        parts = {name for name in names if PART_NAME.search(name)}
        others = {name for name in names - parts - {UNFINISHED} if not name.endswith(PARTIAL)}
        if others or (parts and UNFINISHED not in names):
            raise OutputExistsError(
                f"{self.place} already exists, with {min(others or parts)} in it: remove it, or "
                f"choose another output"
            )
        if parts and not self._is_ours():
            raise OutputExistsError(
                f"{self.place} holds {len(parts)} parts of what another command makes there: give "
                f"that command again, remove the folder, or choose another output"
            )
        return parts

    def begin(self, facts: dict[str, Any]) -> None:
        """Say in the folder that it isn't whole, and what is being made there.

        Raises:
            OutputWriteError: If nothing can be written there; of an object store, StoreError.
        """
        content = {
            "told": f"Parts are missing here until {MANIFEST} is there, too.",
            "command": self.command,
            **facts,
        }
        with writing(self.place):
            self.unfinished.write(json.dumps(content, indent=1).encode())

    def write(self, part: Part, convert: Convert) -> int:
        """Make a part, unless it is there, and say how many rows were written.

        Raises:
            EmbFilterError: What ``convert`` raises.
            OutputWriteError: If it can't be written.
            StoreError: If an object store gives no input, or takes no output.
            VectorFileError: If the input has changed meanwhile.
            ClusterError: If the output is no longer this command's.
        """
        target = self.place.inside(part.name)
        try:
            if target.exists():
                return 0
            with writing(target, KEPT), target.putting() as file:
                table = part.table()
                table.write(file, convert(table, part))
                # What was read is a mixture, if the file was written to meanwhile.
                part.check_unchanged()
                rows = ParquetTable(file).rows
                # And another command may write here by now, or somebody read.
                if not (self._is_ours() or target.exists()):
                    raise ClusterError(TAKEN.format(self.place))
            return rows
        except OutputWriteError:
            # Another run of the command may have been sooner, and have cleared up.
            if not target.exists():
                raise
            return 0
        except StoreError as error:
            raise StoreError(f"{error}{KEPT}") from error

    def publish(self, parts: list[Part], facts: dict[str, Any]) -> dict[str, Any]:
        """Put the manifest beside the parts, which makes the output whole, and return it.

        What is left of an input that was another one then is deleted.

        Raises:
            OutputWriteError: If a part isn't there, or the manifest can't be written.
            OutputExistsError: If another run has made another output of it by now.
            StoreError: If an object store fails.
        """
        names, wanted = self.place.files().keys(), {part.name for part in parts}
        missing = sorted(wanted - names)
        if missing:
            raise OutputWriteError(
                f"{self.place}: {len(missing)} of {len(parts)} parts are not here, as "
                f"{missing[0]}, though workers wrote them: all machines must share that folder"
            )
        counting = (partial(self._rows, part) for part in parts)
        rows = list(in_order(counting, AT_ONCE, 4 * AT_ONCE))
        counted = [replace(part, rows=of_part) for part, of_part in zip(parts, rows, strict=True)]
        made = {**facts, "rows": sum(rows), "parts": [asdict(part) for part in counted]}
        content = json.dumps(made, indent=1).encode()
        # Another run of the command may have been sooner.
        if not self._is_ours() and self.manifest.read() != content:
            raise OutputExistsError(TAKEN.format(self.place))
        with writing(self.place, KEPT):
            for name in names - wanted:
                if PART_NAME.search(name) or name.endswith(PARTIAL):
                    self.place.inside(name).delete()
            self.manifest.write(content)
            self.unfinished.delete()
        manifest: dict[str, Any] = json.loads(content)
        return manifest

    def _rows(self, part: Part) -> int:
        """How many rows a part has that is there."""
        if part.rows is not None:
            return part.rows
        place = self.place.inside(part.name)
        with place.open() as file:
            return ParquetTable(str(place), file).rows

    def _is_ours(self) -> bool:
        """Whether the folder is not whole, and this command's."""
        content = self.unfinished.read()
        return content is not None and json.loads(content)["command"] == self.command
