"""A hub on this machine: the part of the Hugging Face hub's protocol that its own client speaks.

Reading with ranges, listings and revisions; creating, large files, commits, branches and pull
requests; tokens, and errors with the hub's codes.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.hub_card import RefusedError, check_card, read_card
from support.hub_store import COMMIT, Blob, Files, Repository, find_entry, list_folder, plan

__all__ = ["COMMIT", "Hub", "serve"]

# Models, and data sets as "datasets/org/name".
REPO = r"(?P<repo>(?:datasets/)?[^/]+(?:/[^/]+)?)"
RESOLVE = re.compile(rf"/{REPO}/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<path>.+)")
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+(?:/[^/]+?)?)"
    r"(?:/(?P<call>revision|tree|paths-info|commits|preupload|commit|branch)"
    r"/(?P<revision>refs/pr/\d+|[^/]+)(?:/(?P<path>.+))?)?"
)
BATCH = re.compile(rf"/{REPO}\.git/info/lfs/objects/batch")
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
    The body of a range of a file in ``cut`` ends early, as where a connection breaks; of one in
    ``whole``, it is the whole file.
    A token may write to the owners it is listed with. A request whose method and path a pattern
    in ``faults`` matches is answered with that status. ``watch`` sees each request before it is
    answered.
    """

    repositories: dict[str, Repository]
    aliases: dict[str, str] = field(default_factory=dict)
    url: str = ""
    gated: set[tuple[str, str]] = field(default_factory=set)
    cut: set[tuple[str, str]] = field(default_factory=set)
    whole: set[tuple[str, str]] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    tokens: dict[str, tuple[str, ...]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    watch: Callable[[str, str], None] = lambda method, path: None
    large_files: dict[str, Blob] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def fetched(self, repository: str, filename: str) -> int:
        """How many bytes of a file went out, over all requests."""
        path = re.compile(rf"/{re.escape(repository)}/resolve/[^/]+/{re.escape(filename)}")
        return sum(r.sent for r in self.requests if path.fullmatch(urlsplit(r.path).path))


@contextmanager
def serve(repositories: Mapping[str, Path], port: int = 0) -> Iterator[Hub]:
    """Serve folders as repositories until the end of the block."""
    hub = Hub({name: Repository.of_folder(folder) for name, folder in repositories.items()})

    class BoundHandler(Handler):
        shared = hub

    with ThreadingHTTPServer(("127.0.0.1", port), BoundHandler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers one request. The hub is the class's, as the library makes the instances."""

    shared: Hub
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionResetError):  # A client that has read enough.
            super().handle()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.shared.watch(self.command, path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if len(body) < int(self.headers.get("Content-Length", 0)):
            self.close_connection = True
            return  # The client died while it sent.
        try:
            self.route(path, body)
        except RefusedError as refusal:
            status, code, text, *commit = refusal.args
            extra = {"X-Error-Code": code} if code else {}
            if commit:
                extra["X-Repo-Commit"] = commit[0]
            answer = {"error": text, "errors": [{"message": text}]}
            self.send_body(status, json.dumps(answer).encode(), extra)
        except BrokenPipeError:
            self.close_connection = True

    def route(self, path: str, body: bytes) -> None:
        for pattern, status in self.shared.faults.items():
            if re.search(pattern, f"{self.command} {path}"):
                raise RefusedError(status, None, "Internal error - we're working on it")
        api, resolve, batch = API.fullmatch(path), RESOLVE.fullmatch(path), BATCH.fullmatch(path)
        named = api or resolve
        if named and named["repo"] in self.shared.aliases:
            name = self.shared.aliases[named["repo"]]
            self.send_body(307, b"", {"Location": self.path.replace(named["repo"], name, 1)})
        elif path == "/api/validate-yaml":
            self.send_json(check_card(json.loads(body)["content"]))
        elif path == "/api/repos/create":
            self.send_json(self.create(json.loads(body)))
        elif path.startswith("/lfs/") and self.command == "PUT":
            blob = Blob(body)
            if blob.sha256 != path.removeprefix("/lfs/"):
                raise RefusedError(400, None, "the content is not of that hash")
            self.shared.large_files[blob.sha256] = blob
            self.send_body(200, b"", {})
        elif batch:
            self.may_write(batch["repo"])
            self.send_json(self.offer_uploads(json.loads(body)))
        elif api and api["call"] in ("preupload", "commit", "branch"):
            repo = api["repo"] if api["kind"] == "models" else f"datasets/{api['repo']}"
            self.may_write(repo)
            with self.shared.lock:
                self.send_json(self.write(api, self.shared.repositories[repo], body))
        elif api:
            self.send_json(self.read(api, body))
        elif resolve:
            self.send_content(resolve["repo"], resolve["revision"], resolve["path"])
        else:
            raise RefusedError(404, None, "no such page")

    def owners(self) -> tuple[str, ...] | None:
        """Those that the request's token may write to; None without a token."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.shared.tokens:
            raise RefusedError(401, None, "Invalid user token.")
        return self.shared.tokens.get(token)

    def may_write(self, repository: str) -> None:
        owners = self.owners()
        if owners is None:
            raise RefusedError(401, None, "Invalid username or password.")
        if repository.removeprefix("datasets/").partition("/")[0] not in owners:
            raise RefusedError(403, None, "You don't have the rights to write to this repository")
        if repository not in self.shared.repositories:
            raise RefusedError(404, "RepoNotFound", "Repository not found")

    def create(self, wanted: dict[str, Any]) -> Any:
        owners = self.owners()
        owner = wanted["organization"] or "nobody"
        if owners is None:
            raise RefusedError(401, None, "Invalid username or password.")
        if owner not in owners:
            raise RefusedError(403, None, f'You don\'t have the rights to create under "{owner}"')
        name = f"{owner}/{wanted['name']}"
        if name in self.shared.repositories:
            raise RefusedError(409, None, "You already created this model repo")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.shared.repositories[name] = Repository.new(private)
        return {"url": f"{self.shared.url}/{name}"}

    def offer_uploads(self, wanted: dict[str, Any]) -> Any:
        objects = [
            {
                **entry,
                "actions": {"upload": {"href": f"{self.shared.url}/lfs/{entry['oid']}"}},
            }
            if entry["oid"] not in self.shared.large_files
            else entry
            for entry in wanted["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def write(self, api: re.Match[str], repository: Repository, body: bytes) -> Any:
        revision = api["revision"]
        if api["call"] == "branch":
            if revision in repository.refs:
                raise RefusedError(409, None, "Reference already exists")
            repository.refs[revision] = repository.refs["main"]
            return {}
        if revision not in repository.refs:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = dict(repository.commits[repository.refs[revision]])
        if api["call"] == "preupload":
            return {"files": [plan(file, files) for file in json.loads(body)["files"]]}
        lines = [json.loads(line) for line in body.splitlines()]
        header, *changes = [line["value"] for line in lines]
        kinds = [line["key"] for line in lines[1:]]
        if header.get("parentCommit") not in (None, repository.refs[revision]):
            raise RefusedError(412, None, "A commit has happened since. Please refresh.")
        for kind, change in zip(kinds, changes, strict=True):
            self.apply(kind, change, files)
        asked = parse_qs(urlsplit(self.path).query)
        number = len([ref for ref in repository.refs if ref.startswith("refs/pr/")]) + 1
        ref = f"refs/pr/{number}" if "create_pr" in asked else revision
        oid = repository.commit(ref, files)
        page = f"{self.shared.url}/{api['repo']}"
        request = f"{page}/discussions/{number}" if "create_pr" in asked else None
        return {
            "commitUrl": f"{page}/commit/{oid}",
            "commitOid": oid,
            "pullRequestUrl": request,
        }

    def apply(self, kind: str, change: dict[str, Any], files: Files) -> None:
        """Change files as one line of a commit says."""
        name = change["path"]
        if kind == "deletedFile":
            if name not in files:
                raise RefusedError(404, "EntryNotFound", "A file with this name doesn't exist")
            del files[name]
        elif kind == "lfsFile":
            if change["oid"] not in self.shared.large_files:
                raise RefusedError(400, None, f"{name} was not sent ahead")
            files[name] = self.shared.large_files[change["oid"]]
        else:
            files[name] = Blob(base64.b64decode(change["content"]))

    def files(self, repository: str, revision: str) -> tuple[str, Files]:
        """A repository's commit and its files, after checking both names."""
        found = self.shared.repositories.get(repository)
        owner = repository.removeprefix("datasets/").partition("/")[0]
        if found is None or (found.private and owner not in (self.owners() or ())):
            raise RefusedError(404, "RepoNotFound", "Repository not found")
        commit = found.resolve(revision)
        if commit is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, found.commits[commit]

    def read(self, api: re.Match[str], body: bytes) -> Any:
        repo = api["repo"] if api["kind"] == "models" else f"datasets/{api['repo']}"
        commit, files = self.files(repo, api["revision"] or "main")
        if api["call"] == "commits":
            about = {"title": "a commit", "message": "", "authors": []}
            return [{"id": commit, "date": "2026-01-01T00:00:00.000Z", **about}]
        if api["call"] == "tree":
            deep = "recursive=true" in urlsplit(self.path).query.lower()
            entries = list_folder(files, api["path"] or "", deep)
            if not entries:
                raise RefusedError(404, "EntryNotFound", "Entry not found")
            return entries
        if api["call"] == "paths-info":
            paths = parse_qs(body.decode()).get("paths", [])
            return [entry for path in paths for entry in find_entry(files, path)]
        card = read_card(files["README.md"].read().decode()) if "README.md" in files else {}
        return {
            "id": api["repo"],
            "sha": commit,
            "private": self.shared.repositories[repo].private,
            "cardData": card,
            "tags": card.get("tags", []),
            "siblings": [{"rfilename": name} for name in sorted(files)],
        }

    def send_content(self, repository: str, revision: str, filename: str) -> None:
        commit, files = self.files(repository, revision)
        if (repository, filename) in self.shared.gated:
            raise RefusedError(403, "GatedRepo", "Access to this model is restricted")
        if filename not in files:
            raise RefusedError(404, "EntryNotFound", "Entry not found", commit)
        blob = files[filename]
        headers = {"ETag": f'"{blob.sha256}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted = RANGE.fullmatch(self.headers.get("Range") or "")
        if wanted is None or (repository, filename) in self.shared.whole:
            self.send_body(200, blob, headers)
            return
        first, last = int(wanted[1]), int(wanted[2] or blob.size - 1)
        if first >= blob.size:
            raise RefusedError(416, None, "range not satisfiable")
        part = blob.read(first, last + 1)
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{blob.size}"
        self.send_body(206, part, headers, cut=(repository, filename) in self.shared.cut)

    def send_json(self, answer: Any) -> None:
        self.send_body(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send_body(
        self, status: int, body: bytes | Blob, headers: Mapping[str, str], cut: bool = False
    ) -> None:
        blob = body if isinstance(body, Blob) else Blob(body)
        size = 0 if self.command == "HEAD" else blob.size // 2 if cut else blob.size
        wanted = self.headers.get("Range")
        # Before the client hears of it, and may look.
        self.shared.requests.append(Request(self.command, self.path, wanted, status, size))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(blob.size)}.items():
            self.send_header(name, value)
        self.end_headers()
        for first in range(0, size, 1 << 24):
            self.wfile.write(blob.read(first, min(first + (1 << 24), size)))
        self.close_connection = cut or self.close_connection
