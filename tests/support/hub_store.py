"""What a hub holds: repositories of commits of files, and the large files that were sent ahead."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# Of a repository that was there from the start.
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_FILE_SIZE = 10_000_000
LARGE_FILE_SUFFIXES = (".safetensors", ".png", ".onnx")
Files = dict[str, "Blob"]


@dataclass(frozen=True)
class Blob:
    """A file's content, in memory or on disk."""

    source: bytes | Path

    @property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def read(self, first: int = 0, end: int | None = None) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[first:end]
        with self.source.open("rb") as file:
            file.seek(first)
            return file.read(-1 if end is None else end - first)

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for first in range(0, self.size, 1 << 24):
            digest.update(self.read(first, first + (1 << 24)))
        return digest.hexdigest()

    @property
    def git_oid(self) -> str:
        """As git names it."""
        return hashlib.sha1(b"blob %d\0" % self.size + self.read()).hexdigest()


def is_large(name: str, size: int) -> bool:
    """Whether the hub keeps a file beside git."""
    return size > LARGE_FILE_SIZE or name.endswith(LARGE_FILE_SUFFIXES)


@dataclass
class Repository:
    """Commits by their names, and the branches and pull requests that name the newest ones."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> "Repository":
        """One commit of a folder's files, as they are when they are asked for."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): Blob(path) for path in paths}
        return cls(commits={COMMIT: files}, refs={"main": COMMIT})

    @classmethod
    def new(cls, private: bool) -> "Repository":
        """As the hub makes one."""
        repository = cls(private)
        repository.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")})
        return repository

    def commit(self, ref: str, files: Files) -> str:
        """Make these a ref's files, all at once."""
        history = f"{len(self.commits)} {ref} {self.refs.get(ref)} {sorted(files)}"
        oid = hashlib.sha1(history.encode()).hexdigest()
        self.commits[oid] = files
        self.refs[ref] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a revision names."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    @property
    def head(self) -> Files:
        return self.commits[self.refs["main"]]


def plan(file: dict[str, Any], files: Files) -> dict[str, Any]:
    """How the client is to send a file, and the name of what is there now."""
    name, large = file["path"], is_large(file["path"], file["size"])
    there = files.get(name)
    oid = there and (there.sha256 if large else there.git_oid)
    mode = "lfs" if large else "regular"
    return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def list_folder(files: Files, folder: str, deep: bool) -> list[dict[str, Any]]:
    """What a folder holds, or all that is below it."""
    prefix = f"{folder}/" if folder else ""
    inside = [name.removeprefix(prefix) for name in sorted(files) if name.startswith(prefix)]
    names = {"/".join(name.split("/")[:n]) for name in inside for n in range(1, 9)}
    wanted = sorted(name for name in names if deep or "/" not in name)
    return [entry for name in wanted for entry in find_entry(files, prefix + name)]


def find_entry(files: Files, path: str) -> list[dict[str, Any]]:
    """A file or folder, as the hub's listings tell of it; none if there is none."""
    if path not in files:
        folder = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return [folder] if any(name.startswith(f"{path}/") for name in files) else []
    blob = files[path]
    entry = {"type": "file", "path": path, "oid": "1" * 40, "size": blob.size}
    if is_large(path, blob.size):
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
    return [entry]
