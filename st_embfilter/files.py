"""Outputs that appear whole, by rename, or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from st_embfilter.errors import (
    EmbFilterError,
    MisuseError,
    OutputExistsError,
    OutputWriteError,
)


@contextmanager
def atomic_output(path: str | Path, *, folder: bool = False) -> Iterator[Path]:
    """Give a hidden neighbour of ``path`` to write to, and rename it to ``path`` at the end.

    What a killed run left behind under the hidden name is removed by the next run for the same
    output. On any exception the hidden neighbour is removed and ``path`` is not touched.

    Args:
        path: The output. Its parent folders are made.
        folder: Whether the output is a folder (given empty) or a file.

    Raises:
        MisuseError: If another run is writing it.
        OutputExistsError: If ``path`` is already there, at the start or at the end.
        OutputWriteError: If writing failed: no space, no permission.
    """
    path = Path(path).absolute()
    check_absent(path)
    partial = path.with_name(f".{path.name}.partial")
    with alone(path, partial):
        try:
            with writing(path):
                remove(partial)
                if folder:
                    partial.mkdir()
                yield partial
                if folder:
                    _publish_permissions(partial)
                rename_to_absent(partial, path)
        finally:
            remove(partial)


@contextmanager
def alone(output: Path, work: Path) -> Iterator[None]:
    """Be the only run that writes an output, inside the ``with``.

    Args:
        output: As the error names it.
        work: The hidden file or folder that two runs would both write to. Its folder is made.

    Raises:
        MisuseError: If another run is in there. It is until it ends, however it does.
        OutputWriteError: No space, no permission.
    """
    lock = FileLock(work.with_name(f"{work.name}.lock"))
    with writing(output):
        work.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise MisuseError(
                f"{output} is being written by another run: wait for it, or choose another output"
            ) from error
    try:
        yield
    finally:
        # Not after it is let go, as then it can be another's. (Windows can't, and then does.)
        with suppress(PermissionError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def writing(path: object, advice: str = "") -> Iterator[None]:
    """Make one error of all that keeps an output from being written inside the ``with``.

    Args:
        path: The output, as the error names it.
        advice: What there is to say beyond the reason.

    Raises:
        OutputWriteError: No space, no permission.
    """
    try:
        yield
    except EmbFilterError:
        raise
    except (OSError, SafetensorError) as error:
        raise OutputWriteError(f"{path} could not be written: {error}{advice}") from error


def rename_to_absent(partial: Path, path: Path) -> None:
    """Give an output its name, unless something has it by now.

    Raises:
        OutputExistsError: If something has.
    """
    # os.rename would replace an existing file, or an empty folder, without a word.
    check_absent(path)
    os.rename(partial, path)


def check_absent(path: str | Path) -> None:
    """Raise :class:`OutputExistsError` if something is at ``path``."""
    if os.path.lexists(path):
        raise OutputExistsError(f"{path} already exists: remove it, or choose another output")


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; fine if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _publish_permissions(folder: Path) -> None:
    """Give every file the permissions of a newly made one.

    safetensors makes its files readable by their owner alone, so that a server which runs as
    another user could not read the artifact.
    """
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~umask)


def digest_file(digest: "hashlib._Hash", path: Path) -> None:
    """Add a file's content to a digest, without holding it in memory."""
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a neighbour of a file to write to, and put it in the file's place at the end.

    For files that a later run writes anew; a new output is :func:`atomic_output`'s.

    Raises:
        OSError: If writing failed. The file is then as it was. (:func:`writing` names the output.)
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or all files of a folder, on the disk."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def identity(path: Path) -> list[tuple[str, int, int]]:
    """What tells a file's, or folder's, content from an earlier one's: sizes and times."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError, ValueError: If it can't be read.
    """
    return json.loads(path.read_text(encoding="utf-8"))
