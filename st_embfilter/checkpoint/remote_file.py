"""A file on a hub, of which only the bytes that are asked for come over the network.

huggingface_hub's own file system takes a whole file for the range it asked for, if that is what a
server or proxy sends, and keeps nothing of what came. Here a server that ignores ranges is refused
before its first byte is read, a connection that breaks is taken up where it broke, and a span goes
to a file as it comes, so that a run that was stopped goes on there.
"""

import hashlib
import io
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is not listed
    HfHubHTTPError,
    HTTPError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from st_embfilter._compat import stream_response

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# How often in a row a connection may break without a byte, and the longest wait between, in s.
ATTEMPTS = 5
LONGEST_WAIT = 8


class RemoteFile(io.RawIOBase):
    """A file of a hub's repository, open for random access: every read is one range request.

    Args:
        repo_id: The repository.
        filename: The file's name in it.
        revision: The commit.

    Raises:
        EntryNotFoundError: If there is no such file.
        HTTPError: If the hub refuses it.
        OSError: If it can't be reached.
    """

    def __init__(self, repo_id: str, filename: str, revision: str | None) -> None:
        self.url = hf_hub_url(repo_id, filename, revision=revision)
        found = get_hf_file_metadata(self.url)
        self.size, self.etag = found.size or 0, found.etag
        self.position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As any file's."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def read(self, size: int = -1) -> bytes:
        """As any file's, but never fewer bytes than there are."""
        end = self.size if size < 0 else min(self.position + size, self.size)
        content = b"".join(self.chunks(self.position, end))
        self.position += len(content)
        return content

    def chunks(self, begin: int, end: int) -> Generator[bytes, None, None]:
        """The bytes from ``begin`` to ``end`` (one past the last), in pieces as they come."""
        failures = 0
        while begin < end:
            try:
                for chunk in self.request(begin, end):
                    yield chunk
                    begin += len(chunk)
                    failures = 0
                if begin < end:
                    raise OSError(f"the connection ended {end - begin:,} bytes early")
            except (OSError, HTTPError) as error:
                failures += 1
                if failures == ATTEMPTS or not _is_passing(error):
                    raise
                time.sleep(min(2 ** (failures - 1), LONGEST_WAIT))

    def request(self, begin: int, end: int) -> Iterator[bytes]:
        """One range request."""
        # A body that was packed on the way has other bytes than the file.
        headers = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with stream_response(self.url, {**build_hf_headers(), **headers}) as (status, body):
            if status != 206:
                raise RangesIgnoredError(
                    f"the server sends the whole file of {self.size:,} bytes for a part of it "
                    f"(it ignores range requests): fetch the model first (hf download), and name "
                    f"its folder"
                )
            yield from body


class RangesIgnoredError(OSError):
    """The server answers a range request with the whole file."""


def _is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return not isinstance(error, RangesIgnoredError)


class KeptSpan(io.RawIOBase):
    """A span of a remote file, read from its start, and kept on disk as it comes.

    What an earlier run has fetched is not fetched again. It lies in the folder ``st-embfilter`` of
    the hub's cache (``HF_HOME``), and can be deleted at any time. Two runs at once may write the
    same file: each writes the same bytes to the same places, without a gap before them.

    Args:
        remote: The file.
        begin: The span's first byte.
        end: One past its last byte.
    """

    def __init__(self, remote: RemoteFile, begin: int, end: int) -> None:
        name = hashlib.sha256(f"{remote.url} {remote.etag} {begin} {end}".encode()).hexdigest()
        path = Path(constants.HF_HOME, "st-embfilter", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.kept = path.open("r+b", buffering=0)
        self.held = self.kept.seek(0, os.SEEK_END)
        self.fresh = remote.chunks(begin + self.held, end)
        self.position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer with what comes next, as far as there is more."""
        wanted = self.position + len(memoryview(buffer))
        while self.held < wanted and (chunk := next(self.fresh, None)):
            self.kept.seek(self.held)
            self.kept.write(chunk)
            self.held += len(chunk)
        self.kept.seek(self.position)
        count: int = self.kept.readinto(buffer) or 0
        self.position += count
        return count

    def close(self) -> None:
        """Close the file on disk, where what came stays, and the connection."""
        self.fresh.close()
        self.kept.close()
        super().close()
