"""W_U from a hub: the same matrix, few bytes, and errors by their names.

Three clients run one after the other with one cache: with the hub, in offline mode, and with the
hub gone.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from st_embfilter import FilterModule, build_model
from support.hub_runs import client_environment
from support.hub_server import COMMIT, Hub, serve
from support.models import tiny_llama
from support.paths import SUPPORT

pytestmark = pytest.mark.slow

CLIENT = SUPPORT / "hub_client.py"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Outcome = dict[str, Any]
Call = tuple[str, ...]

ONLINE: list[Call] = [
    ("unembedding", "org/tiny"),
    ("unembedding", "org/tiny", "main"),
    ("unembedding", "org/tiny", COMMIT),
    ("unembedding", "org/tiny", "no-such-branch"),
    ("unembedding", "org/absent"),
    ("unembedding", "absent"),
    ("unembedding", "org/bare"),
    ("unembedding", "org/adapter"),
    ("unembedding", "org/evil"),
    ("unembedding", "org/gated"),
    ("unembedding", "org/cut"),
    ("unembedding", "org/whole"),
    ("unembedding", "org/shards"),
    ("unembedding", "alias"),
    ("filter", "org/filter"),
    ("config", "org/config"),
    ("snapshot", "org/kept"),
    ("snapshot", "org/kept-shards"),
    ("model", "org/model"),
]
# The model was loaded before, the snapshots were fetched, of the tiny one only the head was read.
CACHED: list[Call] = [
    ("unembedding", "org/model"),
    ("unembedding", "org/kept"),
    ("unembedding", "org/kept-shards"),
    ("unembedding", "org/kept", COMMIT),
    ("filter", "org/kept"),
    ("model", "org/model"),
]
NOT_CACHED: list[Call] = [("unembedding", "org/tiny"), ("unembedding", "org/never")]


@dataclass
class Run:
    """What came of each client's calls, by the client and the call."""

    hub: Hub
    outcomes: dict[tuple[str, Call], Outcome] = field(default_factory=dict)

    def call(self, client: str, calls: list[Call], home: Path, offline: str) -> None:
        environment = {
            **client_environment(self.hub, home, token=None),
            "HF_HUB_OFFLINE": offline,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        ran = subprocess.run(
            [sys.executable, str(CLIENT), json.dumps(calls)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        print(ran.stderr, file=sys.stderr)
        assert ran.returncode == 0
        for arguments, outcome in zip(calls, json.loads(ran.stdout), strict=True):
            self.outcomes[client, arguments] = outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose head is a small part of its weights."""
    return tiny_llama(tmp_path_factory.mktemp("hub") / "tiny", num_hidden_layers=8)


@pytest.fixture(scope="module")
def shards(folder: Path) -> Path:
    path = folder.with_name("shards")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(path, max_shard_size="100KB")
    assert (path / INDEX).is_file() and not (path / WEIGHTS).exists()
    return path


@pytest.fixture(scope="module")
def run(folder: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    bare, evil, adapter = (tmp_path_factory.mktemp(name) for name in ("bare", "evil", "adapter"))
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (bare / "README.md").write_text("No model yet.")
    (evil / "config.json").write_bytes((folder / "config.json").read_bytes())
    (evil / INDEX).write_text('{"weight_map": {"lm_head.weight": "../../etc/passwd"}}')
    same = ("tiny", "filter", "config", "kept", "model", "gated", "cut", "whole", "full")
    repositories = {f"org/{name}": folder for name in same}
    split = {f"org/{name}": shards for name in ("shards", "kept-shards")}
    home = tmp_path_factory.mktemp("home")
    others = {"org/bare": bare, "org/evil": evil, "org/adapter": adapter}
    with serve({**repositories, **split, **others}) as hub:
        hub.aliases["alias"] = "org/full"
        hub.gated.add(("org/gated", WEIGHTS))
        hub.cut.add(("org/cut", WEIGHTS))
        hub.whole.add(("org/whole", WEIGHTS))
        run = Run(hub)
        run.call("online", ONLINE, home, offline="0")
        run.call("offline", CACHED + NOT_CACHED, home, offline="1")
    run.call("gone", CACHED + NOT_CACHED, home, offline="0")
    return run


@pytest.fixture(scope="module")
def head(folder: Path) -> Tensor:
    return load_file(folder / WEIGHTS)["lm_head.weight"]


def check(call: Call, outcome: Outcome, folder: Path, head: Tensor) -> None:
    """That a successful call gave what the local folder gives."""
    if call[0] == "unembedding":
        assert outcome.get("revision") == COMMIT, outcome
        assert torch.equal(torch.tensor(outcome["rows"]), head)
        assert outcome["sha256"] == hashlib.sha256(head.numpy().tobytes()).hexdigest()
    elif call[0] == "filter":
        local = FilterModule.from_pretrained(folder, k=12)
        assert outcome.get("provenance"), outcome
        assert outcome["provenance"]["revision"] == COMMIT
        assert outcome["provenance"]["source"] == call[1]
        assert outcome["provenance"]["sha256"] == local.provenance["sha256"]
        torch.testing.assert_close(torch.tensor(outcome["matrix"]), local.linear.weight)
    else:
        assert "embedding" in outcome, outcome
        expected = torch.tensor(
            build_model(folder, band="edge", k=12, device="cpu").encode("a text")
        )
        torch.testing.assert_close(torch.tensor(outcome["embedding"]), expected)


@pytest.mark.parametrize("call", ONLINE[:3] + ONLINE[12:15] + ONLINE[-1:], ids=" ".join)
def test_gives_what_the_folder_gives(call: Call, run: Run, folder: Path, head: Tensor) -> None:
    check(call, run.outcomes["online", call], folder, head)


@pytest.mark.parametrize("client", ["offline", "gone"])
@pytest.mark.parametrize("call", CACHED, ids=" ".join)
def test_cached_model_needs_no_hub(
    call: Call, client: str, run: Run, folder: Path, head: Tensor
) -> None:
    check(call, run.outcomes[client, call], folder, head)


def header_size(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def test_fetches_the_head_and_little_else(run: Run, folder: Path, head: Tensor) -> None:
    size, header = (folder / WEIGHTS).stat().st_size, header_size(folder / WEIGHTS)
    assert size > 6 * (head.nbytes + header)
    # The header is read to find the tensor's name, and again for its place.
    assert head.nbytes < run.hub.fetched("org/filter", WEIGHTS) <= head.nbytes + 2 * header + 100
    for path in folder.iterdir():
        if path.name not in (WEIGHTS, "config.json"):
            assert run.hub.fetched("org/filter", path.name) == 0
    assert (
        run.hub.fetched("org/filter", "config.json") <= 2 * (folder / "config.json").stat().st_size
    )


def test_fetches_of_one_shard_only(run: Run, shards: Path, head: Tensor) -> None:
    holder = json.loads((shards / INDEX).read_text())["weight_map"]["lm_head.weight"]
    allowed = head.nbytes + 2 * header_size(shards / holder) + 100
    assert head.nbytes < run.hub.fetched("org/shards", holder) <= allowed
    for path in shards.glob("*.safetensors"):
        if path.name != holder:
            assert run.hub.fetched("org/shards", path.name) == 0


def test_model_is_downloaded_once(run: Run, folder: Path) -> None:
    """For a whole model, the weights are fetched anyway, and W_U is read from them."""
    size, header = (folder / WEIGHTS).stat().st_size, header_size(folder / WEIGHTS)
    assert size <= run.hub.fetched("org/model", WEIGHTS) <= size + 2 * header + 100


def test_server_speaks_to_transformers(run: Run, head: Tensor) -> None:
    assert run.outcomes["online", ("config", "org/config")] == {"width": head.shape[1]}


def test_nothing_is_asked_for_outside_of_the_repositories(run: Run) -> None:
    assert not [r.path for r in run.hub.requests if "passwd" in r.path or ".." in r.path]


FAILING = [
    ("online", ("unembedding", "org/absent"), "SourceNotFoundError", "org/absent.*no such repo"),
    ("online", ("unembedding", "absent"), "SourceNotFoundError", "absent: no such"),
    ("online", ONLINE[3], "SourceNotFoundError", "org/tiny has no revision no-such-branch"),
    ("online", ("unembedding", "org/bare"), "CheckpointError", "org/bare has no config.json"),
    ("online", ("unembedding", "org/adapter"), "CheckpointError", "org/adapter.*of org/base"),
    ("online", ("unembedding", "org/evil"), "CheckpointError", "org/evil.*outside.*passwd"),
    ("online", ("unembedding", "org/gated"), "SourceNotFoundError", "org/gated"),
    ("online", ("unembedding", "org/cut"), "SourceNotFoundError", "org/cut"),
    ("online", ("unembedding", "org/whole"), "SourceNotFoundError", "org/whole.*hf download"),
    ("offline", NOT_CACHED[0], "SourceNotFoundError", "org/tiny.*not in the local hub cache"),
    ("offline", NOT_CACHED[1], "SourceNotFoundError", "org/never.*can't be reached"),
    ("gone", NOT_CACHED[0], "SourceNotFoundError", "org/tiny.*not in the local hub cache"),
    ("gone", NOT_CACHED[1], "SourceNotFoundError", "org/never.*can't be reached"),
]


@pytest.mark.parametrize(
    ("client", "call", "error", "message"),
    FAILING,
    ids=[f"{client} {' '.join(call[1:])}" for client, call, *_ in FAILING],
)
def test_failing_call(client: str, call: Call, error: str, message: str, run: Run) -> None:
    outcome = run.outcomes[client, call]
    assert outcome.get("error") == error, outcome
    assert re.search(message, outcome["message"]), outcome
    assert "\n" not in outcome["message"] and len(outcome["message"]) < 600
