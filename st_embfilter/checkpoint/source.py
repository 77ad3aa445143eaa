"""Where a language model comes from: a local folder, a hub repository, or a GGUF file.

A :class:`Source` opens the model's files for random access, so that one tensor can be read
without the rest. On the hub that is a range request, unless the file is in the local cache.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is not listed
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from st_embfilter.checkpoint.remote_file import KeptSpan, RemoteFile
from st_embfilter.errors import CheckpointError, MisuseError, SourceNotFoundError

# PEFT's, in the place of config.json and weights.
ADAPTER_CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class _NoFileError(CheckpointError):
    """The model has no file of this name, as opposed to one that can't be read."""


@dataclass(frozen=True)
class Source:
    """A language model's files.

    Attributes:
        name: What the user named: a path or a hub id.
        folder: The local folder, or ``None`` for a hub repository.
        revision: The commit of a hub repository, else ``None``.
        gguf_file: The file's name in ``folder``, where the model is one GGUF file.
    """

    name: str
    folder: Path | None = None
    revision: str | None = None
    gguf_file: str | None = None

    @property
    def location(self) -> str:
        """What transformers' ``from_pretrained`` takes."""
        return str(self.folder) if self.folder else self.name

    @contextmanager
    def open(self, filename: str) -> Iterator[BinaryIO]:
        """Open a file of the model for random access, in a ``with`` block.

        Raises:
            CheckpointError: If there is no such file, its name leaves the model's folder, or it
                can't be read.
            SourceNotFoundError: If the file has to come from the hub, which can't be reached or
                refuses it.
        """
        with self._opened(filename, None) as file:
            yield file

    @contextmanager
    def open_span(self, filename: str, begin: int, end: int) -> Iterator[BinaryIO]:
        """Open a file of the model to read its bytes from ``begin`` to ``end`` once, in order.

        Of a hub's file, what comes is kept, so that it comes only once (:class:`KeptSpan`).

        Raises:
            CheckpointError, SourceNotFoundError: As :meth:`open`.
        """
        with self._opened(filename, (begin, end)) as file:
            yield file

    @contextmanager
    def _opened(self, filename: str, span: tuple[int, int] | None) -> Iterator[BinaryIO]:
        local = self.local_path(filename)
        try:
            with local.open("rb") if local else self._open_remote(filename, span) as file:
                if local and span:
                    file.seek(span[0])
                yield file
        except FileNotFoundError as error:
            raise _NoFileError(f"{self.name} has no file {filename}") from error
        except (OSError, HTTPError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if local:
                raise CheckpointError(f"{self.name}: {filename} can't be read: {reason}") from error
            raise SourceNotFoundError(
                f"{self.name}: {filename} is not in the local hub cache, and can't be had from "
                f"the hub: {reason}"
            ) from error

    def local_path(self, filename: str) -> Path | None:
        """Where the file is on this machine, or ``None`` if it can only be on the hub.

        Raises:
            CheckpointError: If its name leaves the model's folder.
        """
        _check_filename(self.name, filename)
        if self.folder:
            return self.folder / filename
        cached = try_to_load_from_cache(self.name, filename, revision=self.revision)
        return Path(cached) if isinstance(cached, str) else None

    def _open_remote(self, filename: str, span: tuple[int, int] | None) -> BinaryIO:
        if try_to_load_from_cache(self.name, filename, revision=self.revision) is not None:
            raise FileNotFoundError(filename)  # The cache knows that there is none.
        try:
            remote = RemoteFile(self.name, filename, self.revision)
        except EntryNotFoundError as error:
            raise FileNotFoundError(filename) from error
        return cast(BinaryIO, KeptSpan(remote, *span) if span else remote)

    def has(self, filename: str) -> bool:
        """Whether the model has a file of this name."""
        try:
            with self.open(filename):
                return True
        except _NoFileError:
            return False

    def read_json(self, filename: str) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            CheckpointError: If the file is missing or isn't a JSON object.
        """
        with self.open(filename) as file:
            try:
                content = json.load(file)
            except (ValueError, RecursionError) as error:
                raise CheckpointError(f"{self.name}: {filename} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.name}: {filename} is not a JSON object")
        return content


def _check_filename(source: str, filename: str) -> None:
    """Refuse a name that leads out of the model's folder, or is none."""
    path = PurePosixPath(filename)
    if path.is_absolute() or ".." in path.parts or "\\" in filename:
        raise CheckpointError(f"{source} names a file outside of its folder: {filename!r}")
    if not path.name or not filename.isprintable():
        raise CheckpointError(f"{source} names a file that can't be one: {filename!r}")


def resolve_source(source: str | Path, revision: str | None = None) -> Source:
    """Find what the user named.

    Args:
        source: A folder with ``config.json`` and safetensors files, a GGUF file, or a hub id.
        revision: Branch, tag or commit; for a hub id only.

    Raises:
        SourceNotFoundError: If there is no such thing, or the hub can't be reached.
        CheckpointError: If the folder has no ``config.json``.
        MisuseError: If a revision is given for a local path.
    """
    name = str(source)
    path = Path(source).expanduser()
    if path.exists() and revision is not None:
        raise MisuseError(f"{name} is on this machine: a revision is for a hub id only")
    if path.is_file():
        if path.suffix != ".gguf" and not _begins_as_gguf(path):
            raise CheckpointError(f"{name} is a single file, but not GGUF: name the model's folder")
        return Source(name, path.parent.absolute(), gguf_file=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / ADAPTER_CONFIG).is_file():
                raise adapter_error(name, Source(name, path).read_json(ADAPTER_CONFIG))
            gguf = sorted(file.name for file in path.glob("*.gguf"))
            hint = f": name one of its GGUF files ({', '.join(gguf)})" if gguf else ""
            raise CheckpointError(f"{name} is a folder without a config.json{hint}")
        return Source(name, path.absolute())
    if not HUB_ID.fullmatch(name) or name.endswith(".gguf"):
        raise SourceNotFoundError(f"{name}: no such folder or file, and not a hub id (org/name)")
    try:
        config = hf_hub_download(name, "config.json", revision=revision)
    except RepositoryNotFoundError as error:
        raise SourceNotFoundError(
            f"{name}: no such local folder, and no such repository on the hub (a private or gated "
            f"one needs `hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceNotFoundError(f"{name} has no revision {revision} on the hub") from error
    except LocalEntryNotFoundError as error:
        raise SourceNotFoundError(
            f"{name}: no such local folder, not in the local hub cache, and the hub can't be "
            f"reached: check the name, or the network"
        ) from error
    except EntryNotFoundError as error:
        with suppress(EntryNotFoundError):
            path = Path(hf_hub_download(name, ADAPTER_CONFIG, revision=revision))
            local = Source(name, path.parent)
            raise adapter_error(name, local.read_json(ADAPTER_CONFIG)) from error
        raise CheckpointError(f"{name} has no config.json on the hub") from error
    except HFValidationError as error:
        raise SourceNotFoundError(f"{name}: no such folder, and not a hub id: {error}") from error
    # The cache keeps a repository's files below snapshots/<commit>.
    return Source(name, revision=Path(config).parent.name)


def _begins_as_gguf(path: Path) -> bool:
    """Whether a file is GGUF whatever its name, as Ollama's ``sha256-…``."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def adapter_error(source: str, config: dict[str, Any]) -> CheckpointError:
    """The error for a repository of PEFT's, which holds the difference to another model."""
    base = config.get("base_model_name_or_path") or "another model"
    return CheckpointError(
        f"{source} holds an adapter of {base}, without its base: merge them with peft "
        f"(merge_and_unload, save_pretrained), and name the merged folder"
    )
