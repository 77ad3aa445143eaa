"""Publishing to a hub: one commit or none, errors by their names, loaded back unchanged."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from conftest import relative
from hub_server import Hub, serve
from hub_store import Repository
from sentence_transformers import SentenceTransformer
from test_artifact import TEXTS, embed

TESTS = Path(__file__).parent
CLIENT = TESTS / "publish_client.py"
NAME = "org/tiny-embedding"


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    with serve({"org/llm": tiny}) as hub:
        hub.tokens["hf_writes"] = ("org",)
        yield hub


def client_environment(hub: Hub, home: Path, token: str | None = "hf_writes") -> dict[str, str]:
    """Of a process that takes this hub for the only one."""
    dropped = ("proxy", "hf_", "transformers_offline")
    kept = {k: v for k, v in os.environ.items() if not any(w in k.lower() for w in dropped)}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        **({"HF_TOKEN": token} if token else {}),
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def run(
    hub: Hub, home: Path, *arguments: object, token: str | None = "hf_writes"
) -> CompletedProcess[str]:
    """The real command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "st_embfilter", *map(str, arguments)],
        env=client_environment(hub, home, token),
        capture_output=True,
        text=True,
        timeout=300,
    )


def start(
    hub: Hub,
    home: Path,
    folder: Path,
    name: str = NAME,
    token: str | None = "hf_writes",
    **options: Any,
) -> "subprocess.Popen[str]":
    """What publishing does after verification, in a process that starts at once."""
    return subprocess.Popen(
        [sys.executable, str(CLIENT), str(folder), name, json.dumps(options)],
        env=client_environment(hub, home, token),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def send(hub: Hub, home: Path, folder: Path, name: str = NAME, **options: Any) -> dict[str, Any]:
    """As it, to the end: what came of it."""
    output, said = start(hub, home, folder, name, **options).communicate(timeout=120)
    assert output, said
    outcome: dict[str, Any] = json.loads(output)
    return outcome


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_published_revision_loads_without_the_package_and_verifies(
    hub: Hub,
    home: Path,
    tiny_artifact: Path,
    tiny_model: SentenceTransformer,
    plain_python: Path,
) -> None:
    done = run(hub, home, "publish", tiny_artifact, NAME, "--json")
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)
    repository = hub.repositories[NAME]
    assert repository.refs == {"main": published["revision"]} and not repository.private
    # The hub makes the first commit itself; ours is one, and holds everything.
    assert len(repository.commits) == 2
    assert set(repository.head) - {".gitattributes"} == names(tiny_artifact)
    for name in names(tiny_artifact):
        assert repository.head[name].read() == (tiny_artifact / name).read_bytes()

    checked = run(hub, home, "verify", f"{NAME}@{published['revision']}", token=None)
    assert checked.returncode == 0, checked.stderr
    hub.repositories["org/model"] = repository
    found, said = embed(plain_python, home / "model", hub=hub)
    assert relative(found, tiny_model.encode(TEXTS)) <= 1e-5 and "trust" not in said


def test_same_again_changes_nothing(hub: Hub, home: Path, tiny_artifact: Path) -> None:
    first = send(hub, home, tiny_artifact)
    sent = len(hub.requests)
    second = send(hub, home, tiny_artifact)
    assert first["revision"] == second["revision"] == hub.repositories[NAME].refs["main"]
    assert len(hub.repositories[NAME].commits) == 2
    assert not [r for r in hub.requests[sent:] if r.method == "PUT" or "/commit/" in r.path]


def test_new_revision_holds_no_old_files(
    hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(tiny_artifact, old)
    (old / "model-00001-of-00002.safetensors").write_bytes(b"of yesterday")
    (old / ".DS_Store").write_bytes(b"never sent")
    send(hub, home, old)
    assert "model-00001-of-00002.safetensors" in hub.repositories[NAME].head
    planned = run(hub, home, "publish", tiny_artifact, NAME, "--dry-run", "--json")
    plan = json.loads(planned.stdout)
    assert plan["deleted"] == ["model-00001-of-00002.safetensors"] and plan["exists"]
    send(hub, home, tiny_artifact)
    assert set(hub.repositories[NAME].head) == {".gitattributes", *names(tiny_artifact)}


def test_dry_run_sends_nothing(hub: Hub, home: Path, tiny_artifact: Path) -> None:
    done = run(hub, home, "publish", tiny_artifact, NAME, "--dry-run", "--json", token=None)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["files"]) == names(tiny_artifact)
    assert "2_Dense/model.safetensors" in done.stderr and "would be made" in done.stderr
    assert {r.method for r in hub.requests} <= {"GET", "HEAD"} and NAME not in hub.repositories


def test_private_branch_and_pull_request(hub: Hub, home: Path, tiny_artifact: Path) -> None:
    published = send(hub, home, tiny_artifact, private=True, revision="v1")
    repository = hub.repositories[NAME]
    assert repository.private and set(repository.head) == {".gitattributes"}
    assert repository.refs["v1"] == published["revision"]
    published = send(hub, home, tiny_artifact, create_pr=True)
    assert published["pull_request"].endswith("/discussions/1")
    assert set(repository.head) == {".gitattributes"}
    assert repository.refs["refs/pr/1"] == published["revision"]
    # Another token doesn't see it, and is told so.
    hub.tokens["hf_other"] = ("other",)
    refused = run(hub, home, "verify", f"{NAME}@v1", token="hf_other")
    check_failure(refused, 1, "no such repository")


def test_push_to_hub(hub: Hub, home: Path, tiny: Path) -> None:
    script = (
        "import sys; from st_embfilter import build_model, push_to_hub\n"
        "print(push_to_hub(build_model(sys.argv[1], k=12, device='cpu'), sys.argv[2]).revision)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tiny, NAME],
        env=client_environment(hub, home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == hub.repositories[NAME].refs["main"], done.stderr
    dense = json.loads(hub.repositories[NAME].head["2_Dense/config.json"].read())
    assert dense["out_features"] == 12


@pytest.mark.skipif(os.name != "posix", reason="kills with a signal")
def test_killed_upload_leaves_the_old_revision_or_the_new_one(
    hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    """Killed at ten random points, before the server sees a request and after it answered it."""
    shutil.copytree(tiny_artifact, tmp_path / "old")
    (tmp_path / "old" / "README.md").write_text("---\ntags: [old]\n---\nThe old card.\n")
    seen: list[str] = []
    hub.watch = lambda method, path: seen.append(f"{method} {path}")
    send(hub, home, tmp_path / "old")
    # Everything that a first upload asks for, and a little more: not every kill hits.
    points = random.Random(7).choices(range(1, len(seen) + 3), k=10)
    killed = changed = 0
    for number, point in enumerate(points):
        # Another card each time, and all large files anew, so that there is something to send.
        folder = tmp_path / f"new-{number}"
        shutil.copytree(tiny_artifact, folder)
        with (folder / "README.md").open("a") as card:
            card.write(f"\nEdition {number}.\n")
        before = dict(hub.repositories[NAME].head)
        hub.large_files.clear()
        killed += kill_at(hub, point, start(hub, home, folder))
        head = hub.repositories[NAME].head
        if head != before:
            changed += 1
            assert set(head) == {".gitattributes", *names(folder)}
            assert all(head[name].read() == (folder / name).read_bytes() for name in names(folder))
    assert killed >= 5 and changed < 10, f"{killed} of 10 were killed, {changed} were through"
    # The same command again finishes.
    hub.watch = lambda method, path: None
    assert send(hub, home, folder)["revision"] == hub.repositories[NAME].refs["main"]
    card_there = hub.repositories[NAME].head["README.md"].read()
    assert card_there == (folder / "README.md").read_bytes()


def kill_at(hub: Hub, point: int, process: "subprocess.Popen[str]") -> bool:
    """Kill a client at its so-manieth request; whether it came to that."""
    count = 0

    def watch(method: str, path: str) -> None:
        nonlocal count
        count += 1
        if count == point:
            process.kill()

    hub.watch = watch
    process.communicate(timeout=120)
    return process.returncode == -signal.SIGKILL


def test_upload_goes_on_where_it_was(hub: Hub, home: Path, tiny_artifact: Path) -> None:
    hub.faults["POST .*/commit/"] = 503
    failed = send(hub, home, tiny_artifact)
    assert failed["error"] == "HubError" and "503" in failed["message"]
    assert "goes on where it was" in failed["message"]
    assert set(hub.repositories[NAME].head) == {".gitattributes"}
    hub.faults.clear()
    sent = len([r for r in hub.requests if r.method == "PUT"])
    published = send(hub, home, tiny_artifact)
    assert published["revision"] == hub.repositories[NAME].refs["main"]
    assert sent > 0 and len([r for r in hub.requests if r.method == "PUT"]) == sent


def test_change_meanwhile_is_not_overwritten(
    hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    send(hub, home, tiny_artifact)
    head = hub.repositories[NAME].head
    other = {**head, "README.md": head["config.json"]}

    def watch(method: str, path: str) -> None:
        if "/preupload/" in path:
            hub.watch = lambda method, path: None
            hub.repositories[NAME].commit("main", other)

    hub.watch = watch
    changed = tmp_path / "changed"
    shutil.copytree(tiny_artifact, changed)
    (changed / "README.md").write_text((changed / "README.md").read_text() + "\nMore.\n")
    refused = send(hub, home, changed)
    assert refused["error"] == "HubError" and "changed meanwhile" in refused["message"]
    assert hub.repositories[NAME].head == other


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


def check_failure(result: CompletedProcess[str], code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("st-embfilter: error: ") and "Traceback" not in result.stderr
    for word in words:
        assert word in last, last


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

    arguments: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 300}
    command = [sys.executable, "-m", "st_embfilter", "verify", NAME]
    environment = client_environment(hub, home)
    full = subprocess.run(command, env=environment, preexec_fn=limit, **arguments)
    check_failure(full, 1, NAME, "a file failed on this machine")
    again = subprocess.run(command, env=environment, **arguments)
    assert again.returncode == 0, again.stderr
