"""A hub on this machine: as much of the Hugging Face hub's protocol as reading a model takes."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", COMMIT)

REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
RESOLVE = re.compile(rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
API = re.compile(
    rf"/api/models/{REPO}"
    r"(?:/(?P<call>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Request:
    """One answered request; ``sent`` counts the body's bytes."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int


@dataclass
class Hub:
    """Repositories by name, and what clients asked for.

    An alias leads to a repository by redirection, as the hub's old ids without an organization do.
    A file of a repository in ``gated`` is only given to users who were granted access, so to none.
    The body of a range of a file in ``cut`` ends early, as where a connection breaks.
    """

    repositories: dict[str, Path]
    aliases: dict[str, str] = field(default_factory=dict)
    url: str = ""
    gated: set[tuple[str, str]] = field(default_factory=set)
    cut: set[tuple[str, str]] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)

    def fetched(self, repository: str, filename: str) -> int:
        """How many bytes of a file went out, over all requests."""
        path = re.compile(rf"/{re.escape(repository)}/resolve/[^/]+/{re.escape(filename)}")
        return sum(r.sent for r in self.requests if path.fullmatch(urlsplit(r.path).path))


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve folders as repositories until the end of the block."""
    hub = Hub(dict(repositories))

    class BoundHandler(Handler):
        shared = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class RefusedError(Exception):
    """An answer that is an error: status, the hub's error code, and a text."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request. The hub is the class's, as the library makes the instances."""

    shared: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        resolve, api = RESOLVE.fullmatch(path), API.fullmatch(path)
        try:
            if (known := resolve or api) and known["repo"] in self.shared.aliases:
                name = self.shared.aliases[known["repo"]]
                self.send_body(307, b"", {"Location": self.path.replace(known["repo"], name, 1)})
            elif resolve:
                self.send_content(resolve["repo"], resolve["revision"], resolve["path"])
            elif api:
                self.send_json(self.call(api, parse_qs(body.decode())))
            else:
                raise RefusedError(404, None, "no such page")
        except RefusedError as refusal:
            status, code, text = refusal.args
            extra = {"X-Error-Code": code, "X-Error-Message": text} if code else {}
            if code == "EntryNotFound":
                extra["X-Repo-Commit"] = COMMIT
            self.send_body(status, json.dumps({"error": text}).encode(), extra)

    def folder(self, repository: str, revision: str) -> Path:
        """A repository's folder, after checking both names."""
        if repository not in self.shared.repositories:
            raise RefusedError(404, "RepoNotFound", "Repository not found")
        if revision not in REVISIONS:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.shared.repositories[repository]

    def entry(self, folder: Path, path: str) -> Path:
        if ".." in PurePosixPath(path).parts or not (folder / path).exists():
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        return folder / path

    def call(self, api: re.Match[str], form: dict[str, list[str]]) -> Any:
        folder = self.folder(api["repo"], api["revision"] or "main")
        if api["call"] == "tree":
            parent = self.entry(folder, api["path"] or ".")
            return [describe(folder, path) for path in sorted(parent.iterdir())]
        if api["call"] == "paths-info":
            found = [folder / path for path in form["paths"] if ".." not in path]
            return [describe(folder, path) for path in found if path.exists()]
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
        return {"id": api["repo"], "sha": COMMIT, "private": False, "siblings": siblings}

    def send_content(self, repository: str, revision: str, filename: str) -> None:
        path = self.entry(self.folder(repository, revision), filename)
        if (repository, filename) in self.shared.gated:
            raise RefusedError(403, "GatedRepo", "Access to this model is restricted")
        if not path.is_file():
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        content = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        wanted = RANGE.fullmatch(self.headers.get("Range") or "")
        if wanted is None:
            self.send_body(200, content, headers)
            return
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        if first >= len(content):
            raise RefusedError(416, None, "range not satisfiable")
        part = content[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        self.send_body(206, part, headers, cut=(repository, filename) in self.shared.cut)

    def send_json(self, answer: Any) -> None:
        self.send_body(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send_body(
        self, status: int, body: bytes, headers: Mapping[str, str], cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body[: len(body) // 2] if cut else body
        wanted = self.headers.get("Range")
        self.shared.requests.append(Request(self.command, self.path, wanted, status, len(sent)))
        self.wfile.write(sent)
        self.close_connection = cut or self.close_connection


def describe(folder: Path, path: Path) -> dict[str, Any]:
    """A file or folder, as the hub's listings tell of it."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hash_of(name.encode()), "size": 0}
    content = path.read_bytes()
    return {"type": "file", "path": name, "oid": hash_of(content), "size": len(content)}


def hash_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
