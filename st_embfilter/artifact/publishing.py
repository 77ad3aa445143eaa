"""From an artifact, or a pipeline, to a revision on the hub."""

from pathlib import Path
from tempfile import TemporaryDirectory

from sentence_transformers import SentenceTransformer

from st_embfilter.artifact.saving import save_pretrained
from st_embfilter.artifact.verification import verify
from st_embfilter.hub.upload import Plan, Published, check_token, plan_upload, upload


def publish(
    path: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Published:
    """Publish an artifact's folder, in one commit with everything.

    The revision then holds the folder's files and no others. Nothing is published that
    :func:`verify` rejects, and no repository is overwritten that doesn't hold an artifact. An
    upload that fails or is stopped leaves what was published before as it was; the same call
    again sends only what is missing.

    Args:
        path: The artifact's folder.
        repo_id: The hub repository, ``org/name``; it is made if it isn't there.
        private: Make a private repository.
        revision: The branch; made from ``main`` if it isn't there. Default: ``main``.
        create_pr: Open a pull request instead of changing the branch.
        token: The hub's. Default: that of ``hf auth login``, or ``HF_TOKEN``.

    Raises:
        SourceNotFoundError: If there is no such folder.
        VerificationError: If the artifact isn't sound.
        MisuseError: If the name is none, or ``private`` is asked of a public repository.
        HubError: If there is no token, the repository holds something else, the hub refuses, or
            it can't be reached.
    """
    check_token(token)
    plan = prepare(path, repo_id, private=private, revision=revision, token=token)
    return upload(Path(path), plan, create_pr=create_pr, token=token)


def prepare(
    path: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Plan:
    """All of :func:`publish` that changes nothing: what would go, after every check of it.

    Args and errors are those of :func:`publish`.
    """
    # Asked first: it takes a moment, and verification may take minutes.
    plan = plan_upload(Path(path), repo_id, private=private, revision=revision, token=token)
    verify(path)
    return plan


def push_to_hub(
    model: SentenceTransformer,
    repo_id: str,
    *,
    thin: bool = False,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Published:
    """Publish a pipeline with a FilterModule: :func:`save_pretrained`, then :func:`publish`.

    Args and errors are those of the two.
    """
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(model, Path(temporary, "artifact"), thin=thin)
        return publish(
            folder,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            token=token,
        )
