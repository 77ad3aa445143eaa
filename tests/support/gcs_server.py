"""What stands for Google's object store, on this machine and without credentials."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import DEVNULL, Popen
from urllib.request import urlopen

SERVE = (
    "from gcp_storage_emulator.server import create_server\n"
    "create_server('127.0.0.1', {}, in_memory=True, default_bucket='bucket').run()"
)


@dataclass(frozen=True)
class GCS:
    """The server, with a bucket."""

    port: int

    def uri(self, path: str) -> str:
        return f"gs://anonymous@bucket/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def wipe(self) -> None:
        urlopen(f"http://127.0.0.1:{self.port}/wipe?keep-buckets=true").close()


@contextmanager
def serve_gcs() -> Iterator[GCS]:
    """A process of its own: some of pyarrow's calls keep this one's other threads from going on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gcs = GCS(free.getsockname()[1])
    server = Popen([sys.executable, "-c", SERVE.format(gcs.port)], stdout=DEVNULL, stderr=DEVNULL)
    try:
        while server.poll() is None:
            try:
                gcs.wipe()
            except OSError:
                time.sleep(0.05)
            else:
                break
        yield gcs
    finally:
        server.terminate()
        server.wait()
