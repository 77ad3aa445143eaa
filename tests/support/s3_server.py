"""moto's S3 on this machine, with faults put in, and what was asked of it."""

import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pyarrow.fs
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

from st_embfilter.file_systems import file_system

BUCKET = "bucket"
SECRET = "a-secret-that-is-nowhere"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'

Environ = dict[str, Any]
Respond = Callable[[str, list[tuple[str, str]]], object]
# What a fault answers to a request, or None for S3's own answer.
Answer = Callable[[Environ, Respond], Iterable[bytes] | None]


def status(line: str, content: str = "") -> Answer:
    """An answer of an error."""

    def answer(environ: Environ, respond: Respond) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        respond(line, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content.encode()]

    return answer


FAILED = status(
    "500 Internal Server Error",
    ERROR.format("InternalError", "We encountered an internal error. Please try again.").replace(
        "</Error>", f"<RequestId>{'6' * 32}</RequestId><HostId>{'U' * 76}</HostId></Error>"
    ),
)
DENIED = status("403 Forbidden", ERROR.format("AccessDenied", "Access Denied"))
EXPIRED = status("400 Bad Request", ERROR.format("ExpiredToken", "The token has expired."))
NO_S3 = status("200 OK", "<!doctype html><p>Welcome")


def slow(environ: Environ, respond: Respond) -> None:
    """S3's own answer, later than the AWS library waits for one by default."""
    time.sleep(3.5)


def cut_off(environ: Environ, respond: Respond) -> Iterable[bytes]:
    """The connection ends in the middle of what is sent."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError


@dataclass
class Fault:
    """What some of the requests are answered."""

    pattern: str
    answer: Answer
    times: int
    wait: int


@dataclass
class S3:
    """The server.

    Attributes:
        requests: What was asked, as ``GET list`` or ``PUT out/a.parquet``.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    faults: list["Fault"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)

    def fail(self, pattern: str, answer: Answer, times: int = 1, wait: int = 0) -> None:
        """Have requests that match answered by a fault; the first few, as ``wait`` says, aren't."""
        self.faults.append(Fault(pattern, answer, times, wait))

    def reset(self) -> None:
        """Forget faults and requests, and delete everything."""
        self.faults.clear()
        for info in self.files.get_file_info(pyarrow.fs.FileSelector(BUCKET)):
            if info.is_file:
                self.files.delete_file(info.path)
            else:
                self.files.delete_dir(info.path)
        self.requests.clear()

    def make_empty(self, names: Iterable[str]) -> None:
        """Have empty objects there, without a request for each."""
        for name in names:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, name, b"")

    def counts(self) -> Counter[str]:
        """How many requests there were of each kind."""
        return Counter(request.partition(" ")[0] for request in self.requests)

    def put(self, folder: Path, name: str) -> str:
        """Put a folder's files there, and give its URI."""
        pyarrow.fs.copy_files(str(folder), f"{BUCKET}/{name}", destination_filesystem=self.files)
        return f"s3://{BUCKET}/{name}"

    def objects(self, name: str) -> dict[str, bytes]:
        """All objects' contents below a name, without the empty ones that stand for folders."""
        wanted = pyarrow.fs.FileSelector(f"{BUCKET}/{name}", recursive=True, allow_not_found=True)
        files = [info.path for info in self.files.get_file_info(wanted) if info.is_file]
        first = len(f"{BUCKET}/{name}/")
        return {path[first:]: self.files.open_input_file(path).read() for path in files}

    @property
    def files(self) -> pyarrow.fs.S3FileSystem:
        """To look at it with, past the package."""
        return pyarrow.fs.S3FileSystem(
            endpoint_override=self.url, region="us-east-1", allow_bucket_creation=True
        )

    def __call__(self, environ: Environ, respond: Respond) -> Iterable[bytes]:
        method, path, query = (
            environ[key] for key in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")
        )
        told = f"{method} {'list' if 'list-type' in query else path.removeprefix(f'/{BUCKET}/')}"
        with self.lock:
            self.requests.append(told)
            answer = self._fault(told)
        answered = answer(environ, respond) if answer else None
        return self.app(environ, respond) if answered is None else answered

    def _fault(self, told: str) -> Answer | None:
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, told):
                if fault.wait:
                    fault.wait -= 1
                    return None
                fault.times -= 1
                return fault.answer
        return None


class _Handler(WSGIRequestHandler):
    # Connections are kept, as S3 keeps them.
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None: ...


@contextmanager
def serve_s3() -> Iterator[S3]:
    """S3 with an empty bucket, which this process and those it starts find, for a while."""
    s3 = S3()
    server = make_server("127.0.0.1", 0, s3, threaded=True, request_handler=_Handler)
    s3.url = f"http://127.0.0.1:{server.port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=s3.url)
    file_system.cache_clear()
    try:
        s3.files.create_dir(BUCKET)
        yield s3
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.shutdown()
