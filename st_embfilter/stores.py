"""Files and folders on a disk or in an object store, listed, read, put and deleted in one way.

Credentials are those that the store's usual chain finds. A URI that holds some is refused, so a
place can stand in any message, log and manifest; other processes are given the place, and open it
themselves.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl
from uuid import uuid4

from tqdm import tqdm

from st_embfilter.errors import MisuseError, OutputExistsError, StoreError
from st_embfilter.file_systems import file_system, is_fsspec
from st_embfilter.files import check_absent, rename_to_absent, sync
from st_embfilter.store_errors import NO_S3, is_gone, store_errors

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

# What a worker that was killed leaves on a disk; on an object store it leaves nothing.
PARTIAL = ".partial"
COPIED_AT_ONCE = 1 << 25
# Nothing else in a URI's query: other options of pyarrow's are secrets.
OPTIONS = ("endpoint_override", "region", "scheme")
# An Azure container, or a Hadoop user, stands in front of an @, but no password.
BUCKET, HOST = re.compile("[^:@]*"), re.compile(r"([^:@]+@)?[^:@]*(:\d+)?")


@dataclass(frozen=True)
class Place:
    """A file or a folder; made by :meth:`of`, and as text what it was made of.

    Attributes:
        scheme: Of the URI; empty for the disk.
        host: What is in front of the path, as the bucket.
        path: With a slash in front.
        query: The URI's options.
    """

    scheme: str
    host: str
    path: str
    query: str = ""

    @classmethod
    def of(cls, location: "str | Path | Place") -> "Place":
        """The place that a path or URI names.

        Raises:
            MisuseError: If the URI holds credentials, or options that are not taken.
        """
        if isinstance(location, Place):
            return location
        if not is_uri(location):
            return cls("", "", os.path.abspath(location))
        scheme, _, rest = str(location).partition("://")
        rest, _, query = rest.partition("?")
        host, slash, path = rest.partition("/")
        if not (BUCKET if scheme == "s3" else HOST).fullmatch(host):
            raise MisuseError(
                f"a {scheme}:// URI was given with credentials in it: leave them out, and set them "
                f"where the store's tools look for them, as AWS_ACCESS_KEY_ID or ~/.aws/credentials"
            )
        if "@" in query or any(name not in OPTIONS for name, _ in parse_qsl(query, True)):
            raise MisuseError(
                f"{scheme}://{rest}: behind a question mark only {', '.join(OPTIONS)} can stand. "
                f"Set credentials where the store's tools look for them"
            )
        if scheme == "file":
            return cls("", "", slash + path)
        return cls(scheme, host, "/" + path.strip("/"), query)

    def __str__(self) -> str:
        if self.is_local:
            return self.path
        return f"{self.scheme}://{self.host}{self.path}" + (f"?{self.query}" if self.query else "")

    @property
    def name(self) -> str:
        """The last piece of the path."""
        return self.path.rpartition("/")[2]

    @property
    def given(self) -> Path | str:
        """A path, of what is on a disk, or else the URI."""
        return Path(self.path) if self.is_local else str(self)

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk, or a file system that looks like one."""
        return not self.scheme

    def inside(self, name: str) -> "Place":
        """What lies in this folder under a name."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")

    def beside(self, name: str) -> "Place":
        """What lies beside this under a name."""
        return replace(self, path=f"{self.path.rpartition('/')[0]}/{name}")

    def holds(self, other: "Place") -> bool:
        """Whether another place is this one, or lies in it."""
        same = (self.scheme, self.host) == (other.scheme, other.host)
        return same and f"{other.path}/".startswith(self.inside("").path)

    def info(self) -> "pa.fs.FileInfo":
        """Type, size and time.

        Raises:
            StoreError: If the store doesn't say; so do all methods.
        """
        with store_errors(self):
            files, path = self._opened()
            return files.get_file_info(path)

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return bool(self.info().type)

    def is_file(self) -> bool:
        """Whether it is a file, an object."""
        return bool(self.info().is_file)

    def files(self) -> "dict[str, pa.fs.FileInfo]":
        """All files of a folder, at any depth, by name and in their order; none if it is no folder.

        Of an object store, a thousand are listed by a request.
        """
        with store_errors(self):
            import pyarrow.fs

            files, path = self._opened()
            wanted = pyarrow.fs.FileSelector(path, allow_not_found=True, recursive=True)
            first = len(path.strip("/")) + 1
            try:
                found = [info for info in files.get_file_info(wanted) if info.is_file]
            except NotADirectoryError:
                return {}
            return dict(sorted((info.path.strip("/")[first:], info) for info in found))

    def open(self) -> "pa.NativeFile":
        """The file, to be read from any place in it."""
        with store_errors(self):
            files, path = self._opened()
            file = files.open_input_file(path)
            if self.scheme == "s3" and not _etag(file):
                raise StoreError(f"{self}: {NO_S3}")
            return file

    def read(self) -> bytes | None:
        """All of a small file, or None if there is none."""
        with store_errors(self):
            files, path = self._opened()
            try:
                with files.open_input_file(path) as file:
                    return bytes(file.read())
            except OSError as error:
                if is_gone(error):
                    return None
                raise

    def version(self, info: "pa.fs.FileInfo", file: "pa.NativeFile | None" = None) -> str:
        """What tells its content from an earlier one's: size and time, and ETag where it has one.

        Args:
            info: What a listing says of it, or :meth:`info`.
            file: The file, opened, which has its ETag.
        """
        with store_errors(self):
            files, path = self._opened()
            if self.is_local:
                return f"{info.size} {info.mtime_ns}"
            if is_fsspec(files):
                return str(files.handler.fs.ukey(path))
            # An object's own headers have whole seconds; some stores' listings have more.
            known = f"{info.size} {info.mtime_ns // 10**9}"
            return f"{known} {_etag(file)}" if file else known

    @contextmanager
    def putting(self) -> Iterator[Path]:
        """Give a new file to write to, and put it here at the end: whole, or not at all.

        What was here before is replaced then.

        Raises:
            OSError: If it can't be written on this machine.
            StoreError: If the store doesn't take it.
        """
        if self.is_local:
            target = Path(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{uuid4().hex}{PARTIAL}")
            try:
                yield fresh
                sync(fresh)
                os.replace(fresh, target)
            finally:
                fresh.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="st-embfilter-") as folder:
            fresh = Path(folder) / "whole"
            yield fresh
            self.upload(fresh)

    def upload(self, file: Path) -> None:
        """Put a local file here, where this is no disk."""
        with store_errors(self), ThreadPoolExecutor(1) as pool:
            # pyarrow completes an object when its stream goes, with what has come through by then.
            # An interrupt is the calling thread's: this one isn't cut short, and is waited for.
            pool.submit(self._upload, file).result()

    def _upload(self, file: Path) -> None:
        import pyarrow as pa

        files, path = self._opened()
        if is_fsspec(files):
            files.handler.fs.put_file(str(file), path)
            return
        with pa.memory_map(str(file)) as content:
            whole = content.read_buffer()
            # Not pyarrow's copy_files, which passes over an error at the end.
            bar = tqdm(
                total=whole.size, desc=f"Putting {self.name}", unit="B", unit_scale=True, delay=2
            )
            with files.open_output_stream(path) as stream, bar:
                for first in range(0, whole.size, COPIED_AT_ONCE):
                    stream.write(whole[first : first + COPIED_AT_ONCE])
                    bar.update(min(COPIED_AT_ONCE, whole.size - first))

    def take(self, file: Path) -> None:
        """Move a file of this machine here, whole.

        Raises:
            OutputExistsError: If there is something by now.
            StoreError: If the store doesn't take it. The file is kept.
        """
        self.check_absent()
        if self.is_local:
            rename_to_absent(file, Path(self.path))
            return
        try:
            self.upload(file)
        except StoreError as error:
            raise StoreError(
                f"{error}. What was done is kept in {file.parent}: the same command goes on there"
            ) from error
        file.unlink()

    def check_absent(self) -> None:
        """Raise :class:`OutputExistsError` if something is here."""
        if self.is_local:
            check_absent(self.path)
        elif self.exists():
            raise OutputExistsError(f"{self} already exists: remove it, or choose another output")

    def write(self, content: bytes) -> None:
        """Put a small file here, whole."""
        with self.putting() as file:
            file.write_bytes(content)

    def delete(self) -> None:
        """Delete the file, if it is there."""
        with store_errors(self):
            files, path = self._opened()
            try:
                files.delete_file(path)
            except FileNotFoundError:
                return

    def _opened(self) -> "tuple[pa.fs.FileSystem, str]":
        files, base = file_system(self.scheme, self.host, self.query)
        return files, base.rstrip("/") + self.path if self.path != "/" else base


def _etag(file: "pa.NativeFile") -> str:
    told = {name.lower(): value for name, value in file.metadata().items()}
    return bytes(told.get("etag", b"")).decode()


def work_folder(*places: Place) -> Path:
    """Where on this machine the work lies that can't lie beside an output: in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:16]
    return cache / "st-embfilter" / digest


def is_uri(location: str | Path | Place) -> bool:
    """Whether it is no plain path.

    Raises:
        MisuseError: If it was one, before it was made a ``Path``.
    """
    scheme, colon, rest = str(location).partition(":")
    if isinstance(location, Path) and colon and rest.startswith("/") and len(scheme) > 1:
        raise MisuseError(f"{location}: give a URI as a string, a Path takes away its second slash")
    return rest.startswith("//")
