"""What comes from the hub: the folder of a repository's files, and what the hub says of it."""

import re
from collections.abc import Sequence
from pathlib import Path

from st_embfilter.errors import HubError, SourceNotFoundError

ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def artifact_folder(path: str | Path, files: Sequence[str] | None = None) -> Path:
    """The folder as it is, or that of a hub repository's files, in the local cache.

    Args:
        path: A folder, or ``org/name`` or ``org/name@revision`` with a branch, tag or commit.
        files: Fetch these of a repository alone; by default all.

    Raises:
        SourceNotFoundError: If there is no such thing, or the hub can't be reached or refuses it.
        OutputWriteError: If the disk is full.
    """
    if Path(path).is_dir():
        return Path(path)
    name = str(path)
    if not ON_HUB.fullmatch(name):
        raise SourceNotFoundError(f"{name}: no such folder, and not org/name on the hub")
    # Half a second of imports, which a folder doesn't need.
    from huggingface_hub import snapshot_download

    from st_embfilter.hub.errors import hub_errors

    repo_id, _, revision = name.partition("@")
    with hub_errors(name, SourceNotFoundError):
        return Path(
            snapshot_download(
                repo_id,
                revision=revision or None,
                allow_patterns=list(files) if files else None,
            )
        )


def pinned(path: str | Path) -> str:
    """A name that means the same tomorrow: the folder's whole path, or ``org/name@commit``.

    Args:
        path: As :func:`artifact_folder` takes it; a hub repository's files are fetched.

    Raises:
        SourceNotFoundError, OutputWriteError: As :func:`artifact_folder`.
    """
    folder = artifact_folder(path)
    if Path(path).is_dir():
        return str(folder.absolute())
    # The cache keeps a repository's files below snapshots/<commit>.
    return f"{str(path).partition('@')[0]}@{folder.name}"


def refuse_part(path: str | Path, missing: str) -> None:
    """Refuse what lacks a file that the hub may have.

    Where the hub can't be reached, a repository's folder is what of it was fetched before.

    Args:
        path: As :func:`artifact_folder` took it; a folder is whole.
        missing: What it lacks.

    Raises:
        SourceNotFoundError: If it is a repository's, and the hub can't be asked.
    """
    if Path(path).is_dir():
        return
    repo_id, _, revision = str(path).partition("@")
    try:
        release_date(repo_id, revision or None)
    except HubError as error:
        raise SourceNotFoundError(
            f"{path} is only partly in the local hub cache, which lacks {missing}, and the hub "
            f"can't be reached: fetch it once, with `hf download {repo_id}`"
        ) from error


def newest_revision(repo_id: str) -> str | None:
    """The commit that a repository's ``main`` is at.

    Raises:
        HubError: If it isn't there, or the hub can't be reached.
    """
    from huggingface_hub import HfApi

    from st_embfilter.hub.errors import hub_errors

    with hub_errors(repo_id):
        return HfApi().model_info(repo_id).sha


def release_date(repo_id: str, revision: str | None) -> str | None:
    """The day of a commit (by default the newest), as ``2026-11-21``, if the hub says.

    Raises:
        HubError: If it isn't there, or the hub can't be reached.
    """
    from huggingface_hub import HfApi

    from st_embfilter.hub.errors import hub_errors

    with hub_errors(repo_id):
        changed = HfApi().model_info(repo_id, revision=revision).last_modified
    return changed.date().isoformat() if changed else None
