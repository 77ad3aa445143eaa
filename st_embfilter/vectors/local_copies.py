"""Inputs and outputs in object stores, worked on as files of this machine.

Every format's library reads and writes local files, many of them twice: so an input is copied here
once, and an output put there when it is whole. Until then all lies in one folder, and a run that
was stopped goes on there.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from st_embfilter.errors import EmbFilterError
from st_embfilter.files import replace_file
from st_embfilter.store_errors import store_errors
from st_embfilter.stores import COPIED_AT_ONCE, Place, work_folder
from st_embfilter.vectors.job import Filtered

if TYPE_CHECKING:
    import pyarrow as pa


class LocalCopies:
    """Where on this machine an input and an output are; on a disk, where they are anyway.

    Args:
        source: The input.
        out: The output.

    Raises:
        StoreError: If an object store fails.
    """

    def __init__(self, source: Place, out: Place) -> None:
        self.source, self.place = source, out
        self.folder = work_folder(source, out)
        self.out = Path(out.path) if out.is_local else self.folder / out.name

    def begin(self) -> None:
        """Remove an output here that the store didn't take.

        Raises:
            OutputExistsError: If the output exists where it belongs.
        """
        self.place.check_absent()
        if not self.place.is_local:
            # One that the store didn't take is made again of the filtered rows.
            self.out.unlink(missing_ok=True)

    def fetch(self) -> Path:
        """The input, copied here if need be."""
        if self.source.is_local:
            return Path(self.source.path)
        with self.source.open() as file:
            version = self.source.version(self.source.info(), file)
            digest = hashlib.sha256(version.encode()).hexdigest()[:16]
            copy = self.folder / "in" / digest / self.source.name
            if not copy.exists():
                # Of an input that was another one then.
                shutil.rmtree(self.folder / "in", ignore_errors=True)
                _download(self.source, file, copy)
        return copy

    @contextmanager
    def named(self, copy: Path) -> Iterator[None]:
        """Have errors name the input as it was given, not its copy here."""
        try:
            yield
        except EmbFilterError as error:
            error.args = (str(error).replace(str(copy), str(self.source)),)
            raise

    def kept(self, filtered: Filtered) -> Filtered:
        """The filtered rows, under a second name where the first is needed after a rename.

        That is where a store has yet to take the output.
        """
        if self.place.is_local:
            return filtered
        linked = self.folder / "filtered"
        linked.unlink(missing_ok=True)
        os.link(filtered.rows, linked)
        return filtered._replace(rows=linked)

    def put(self, beside: list[Path]) -> None:
        """Put finished files where they belong: those beside the output, and then the output."""
        if not self.place.is_local:
            for file in beside:
                self.place.beside(file.name).upload(file)
            self.place.take(self.out)

    def clear(self) -> None:
        """Remove what was only needed until the output is there."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _download(source: Place, file: "pa.NativeFile", copy: Path) -> None:
    bar = tqdm.wrapattr(file, "read", file.size(), desc=f"Fetching {source.name}", delay=2)
    with (
        store_errors(source),
        replace_file(copy) as fresh,
        fresh.open("wb") as local,
        bar as reading,
    ):
        shutil.copyfileobj(reading, local, COPIED_AT_ONCE)
