"""What can go wrong between an artifact and the hub: one line each, and nothing lost."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.hub_runs import NAME, check_failure, client_environment, run, send
from support.hub_server import Hub
from support.hub_store import Repository

pytestmark = pytest.mark.slow


def break_hub(hub: Hub, case: str) -> None:
    """Make the hub refuse."""
    if case == "foreign":
        hub.repositories[NAME] = hub.repositories["org/llm"]
    elif case == "rights":
        hub.tokens["hf_writes"] = ("other",)
    elif case.isdigit():
        hub.faults["POST /api/repos/create"] = int(case)
    elif case == "large file":
        hub.faults["PUT /lfs/"] = 500


@pytest.mark.parametrize(
    ("case", "token", "words"),
    [
        ("", None, ["no token", "hf auth login"]),
        ("", "hf_unknown", ["the hub doesn't know who asks", "HF_TOKEN"]),
        ("rights", "hf_writes", ["may not write to org"]),
        ("foreign", "hf_writes", ["holds something else", "choose another name"]),
        ("409", "hf_writes", ["is taken", "choose another name"]),
        ("500", "hf_writes", ["500", "as it was"]),
        ("large file", "hf_writes", ["500", "goes on where it was"]),
    ],
)
def test_refused(
    case: str, token: str | None, words: list[str], hub: Hub, home: Path, tiny_artifact: Path
) -> None:
    break_hub(hub, case)
    before = dict(hub.repositories[NAME].head) if NAME in hub.repositories else {}
    outcome = send(hub, home, tiny_artifact, token=token)
    assert outcome.get("error") == "HubError", outcome
    assert all(word in outcome["message"] for word in words), outcome
    after = hub.repositories[NAME].head if NAME in hub.repositories else {}
    assert {name: after[name] for name in after if name != ".gitattributes"} == before


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (NAME, {"private": True}, ["is there and public"]),
        ("name", {}, ["as org/name"]),
        ("org/a/b", {}, ["not a name that the hub allows"]),
    ],
)
def test_misuse(
    name: str,
    options: dict[str, Any],
    words: list[str],
    hub: Hub,
    home: Path,
    tiny_artifact: Path,
) -> None:
    hub.repositories[NAME] = Repository.of_folder(tiny_artifact)
    outcome = send(hub, home, tiny_artifact, name, **options)
    assert outcome.get("error") == "MisuseError", outcome
    assert all(word in outcome["message"] for word in words), outcome
    assert len(hub.repositories[NAME].commits) == 1


def edit_card(folder: Path, old: str, new: str) -> None:
    card = folder / "README.md"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))


@pytest.mark.parametrize("field", ["pipeline_tag: [a, b]", 'pipeline_tag: "', "tags: 7"])
def test_card_with_a_broken_field(
    field: str, hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifact, folder)
    (folder / "README.md").write_text(f"---\n{field}\n---\nA card.\n")
    outcome = send(hub, home, folder)
    assert outcome.get("error") == "HubError" and "README.md is broken" in outcome["message"]
    assert NAME not in hub.repositories


def test_unsound_artifact_is_not_published(
    hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    unsound = tmp_path / "unsound"
    shutil.copytree(tiny_artifact, unsound)
    (unsound / "modules.json").write_text("[]")
    check_failure(run(hub, home, "publish", unsound, NAME), 1, "not a sound artifact", "modules")
    check_failure(run(hub, home, "publish", tmp_path / "none", NAME), 1, "no such folder")
    assert NAME not in hub.repositories


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("org/absent", ["org/absent", "no such repository"]),
        (f"{NAME}@no-such", ["no such revision"]),
        (NAME, ["asked for", "gated"]),
        ("org/llm", ["not a sound artifact"]),
    ],
)
def test_verify_of_the_hub_fails_by_name(
    name: str, words: list[str], hub: Hub, home: Path, tiny_artifact: Path
) -> None:
    hub.repositories[NAME] = Repository.of_folder(tiny_artifact)
    hub.gated.add((NAME, "config.json"))
    check_failure(run(hub, home, "verify", name), 1, *words)


def test_verify_without_a_hub(home: Path) -> None:
    gone = run(Hub({}, url="http://127.0.0.1:9"), home, "verify", "org/other")
    check_failure(gone, 1, "org/other", "hub can't be reached")


def test_full_disk_during_download(hub: Hub, home: Path, tiny_artifact: Path) -> None:
    """A file-size limit fails a write in the middle, as a full disk does."""
    resource = pytest.importorskip("resource")
    hub.repositories[NAME] = Repository.of_folder(tiny_artifact)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = subprocess.run(
        [sys.executable, "-m", "st_embfilter", "verify", NAME],
        env=client_environment(hub, home),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=300,
    )
    check_failure(full, 1, NAME, "a file failed on this machine")
    again = run(hub, home, "verify", NAME)
    assert again.returncode == 0, again.stderr
