"""Publishing to a hub: one commit or none, errors by their names, loaded back unchanged."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from support.comparing import relative
from support.hub_runs import (
    NAME,
    check_failure,
    client_environment,
    content,
    names,
    run,
    send,
    start,
)
from support.hub_server import Hub
from support.other_interpreter import TEXTS, embed
from support.prefork import prefork

pytestmark = pytest.mark.slow


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
        assert repository.head[name].read() == content(tiny_artifact, name)
    card = repository.head["README.md"].read().decode()
    assert f'SentenceTransformer("{NAME}")' in card and "ORG/NAME" not in card

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


def test_push_to_hub(hub: Hub, home: Path, tiny: Path, tmp_path: Path) -> None:
    script = tmp_path / "push.py"
    script.write_text(
        "import sys; from st_embfilter import build_model, push_to_hub\n"
        "print(push_to_hub(build_model(sys.argv[1], k=12, device='cpu'), sys.argv[2]).revision)"
    )
    done = prefork(sys.executable).run(script, tiny, NAME, env=client_environment(hub, home))
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
            assert all(head[name].read() == content(folder, name) for name in names(folder))
    assert killed >= 5 and changed < 10, f"{killed} of 10 were killed, {changed} were through"
    # The same command again finishes.
    hub.watch = lambda method, path: None
    assert send(hub, home, folder)["revision"] == hub.repositories[NAME].refs["main"]
    card_there = hub.repositories[NAME].head["README.md"].read()
    assert card_there == content(folder, "README.md")


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
