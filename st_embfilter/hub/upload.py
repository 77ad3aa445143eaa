"""What goes to the hub: a folder, in one commit.

What holds for the protocol holds here: files of a commit appear together or not at all. Large
files are sent ahead of it, and those that the hub already has are not sent again, so that an
upload which was stopped goes on where it was.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # the second is not listed
    get_session,
    hf_raise_for_status,
)

from st_embfilter.errors import HubError, MisuseError, SourceNotFoundError
from st_embfilter.hub.errors import LOG_IN, hub_errors
from st_embfilter.layout.names import CARD, PROVENANCE_FILE, REPOSITORY

# What the hub itself, or a person who reserved the name, puts into a repository.
NOBODYS_FILES = (".gitattributes", ".gitignore", CARD, "LICENSE")


@dataclass(frozen=True)
class Plan:
    """What publishing a folder would do.

    Attributes:
        repo_id: The repository, ``org/name``.
        files: What would go, with sizes in bytes.
        deleted: What the repository holds now and the folder does not.
        exists: Whether the repository is there.
        head: The commit that the new one would follow, if the repository and branch are there.
        private: Whether a new repository is to be private.
        revision: The branch, or ``None`` for ``main``.
    """

    repo_id: str
    files: dict[str, int]
    deleted: list[str]
    exists: bool
    head: str | None
    private: bool
    revision: str | None


@dataclass(frozen=True)
class Published:
    """A revision on the hub.

    Attributes:
        repo_id: The repository, ``org/name``.
        revision: The commit.
        url: Where a person sees it.
        pull_request: The pull request's address, if one was made.
    """

    repo_id: str
    revision: str
    url: str
    pull_request: str | None


def check_token(token: str | None = None) -> None:
    """Raise :class:`HubError` if there is no token to publish with."""
    if not (token or get_token()):
        raise HubError(f"there is no token for the hub: {LOG_IN}")


def plan_upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Plan:
    """Find out what publishing would do, and whether it may. Nothing is changed.

    Raises:
        SourceNotFoundError: If there is no such folder.
        MisuseError: If the name is none, or ``private`` is asked of a public repository.
        HubError: If the repository holds something else, or the hub doesn't answer.
    """
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: no such folder")
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not _is_hidden(file.relative_to(folder))
    }
    api = HfApi(token=token)
    with hub_errors(repo_id):
        if "/" not in repo_id:
            raise MisuseError(f"{repo_id}: name the repository as org/name")
        try:
            repository = api.model_info(repo_id)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return Plan(repo_id, files, [], False, None, private, revision)
        if private and not repository.private:
            raise MisuseError(
                f"{repo_id} is there and public, which publishing doesn't change: leave out "
                f"--private, or make it private in its settings first"
            )
        head, held = repository.sha, repository.siblings
        if revision is not None:
            head = None
            with suppress(RevisionNotFoundError):
                branch = api.model_info(repo_id, revision=revision)
                head, held = branch.sha, branch.siblings
    names = [sibling.rfilename for sibling in held or []]
    foreign = [name for name in names if name not in NOBODYS_FILES]
    if foreign and PROVENANCE_FILE not in foreign:
        raise HubError(
            f"{repo_id} holds something else ({', '.join(foreign[:3])}), which is not overwritten: "
            f"choose another name, or delete that repository first"
        )
    deleted = [name for name in names if name not in files and name != ".gitattributes"]
    return Plan(repo_id, files, deleted, True, head, private, revision)


def _is_hidden(path: Path) -> bool:
    """Whether a file is not part of what is published: ``.git``, ``.cache``, ``.DS_Store``."""
    return any(part.startswith(".") for part in path.parts)


def upload(
    folder: Path,
    plan: Plan,
    *,
    create_pr: bool = False,
    token: str | None = None,
) -> Published:
    """Carry out a plan: one commit that makes the revision hold the folder's files and no others.

    The commit is refused if the repository changed since the plan was made.

    Raises:
        HubError: If the hub refuses it or can't be reached. What was published before stays as it
            was.
    """
    api, repo_id = HfApi(token=token), plan.repo_id
    with hub_errors(repo_id):
        # First of all, as it is checked without a repository.
        _check_card(folder, api.endpoint)
        if not plan.exists:
            _create_repository(api, repo_id, plan.private)
        if plan.revision is not None and plan.head is None:
            api.create_branch(repo_id, branch=plan.revision, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            [
                *(
                    CommitOperationAdd(name, _content_of(folder, name, repo_id))
                    for name in plan.files
                ),
                *(CommitOperationDelete(name) for name in plan.deleted),
            ],
            commit_message="Publish with st-embfilter",
            revision=plan.revision,
            create_pr=create_pr,
            parent_commit=plan.head,
        )
    return Published(repo_id, commit.oid, commit.commit_url, commit.pr_url)


def _content_of(folder: Path, name: str, repo_id: str) -> Path | bytes:
    """A file as it is published: the model card with the repository's name in it."""
    if name != CARD:
        return folder / name
    return (folder / name).read_text(encoding="utf-8").replace(REPOSITORY, repo_id).encode()


def _check_card(folder: Path, endpoint: str) -> None:
    """Have the hub check the model card's front matter, without a repository."""
    path = folder / CARD
    try:
        card = ModelCard.load(path)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise HubError(f"the front matter of {path} is broken: {error}") from error
    # Not card.validate(), which before 2.0 asks huggingface.co, whatever hub is in use.
    response = get_session().post(
        f"{endpoint}/api/validate-yaml", json={"repoType": "model", "content": str(card)}
    )
    if response.status_code == 400:
        faults = [fault["message"] for fault in response.json().get("errors", [])]
        raise HubError(f"the front matter of {path} is broken: {'; '.join(faults)}")
    hf_raise_for_status(response)


def _create_repository(api: HfApi, repo_id: str, private: bool) -> None:
    """Create a model repository that wasn't seen before."""
    try:
        api.create_repo(repo_id, private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        raise HubError(
            f"{repo_id} is taken, by a repository that this token may not see: choose another name"
        ) from error
