"""From a published model to a submission that mteb reads, on a hub of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import Run, fails
from support.evaluation_data import write_sets
from support.hub_runs import NAME, client_environment, run, send
from support.hub_server import Hub
from support.hub_store import Blob, Repository
from support.prefork import prefork

mteb = pytest.importorskip("mteb", reason="needs st-embfilter[mteb]")
from st_embfilter.evaluation.leaderboard import identifier, load_meta  # noqa: E402

pytestmark = pytest.mark.slow

STS16 = "4d8694f8f0e0100860b497b999b3dbed754a0513"


@pytest.fixture
def data_hub(hub: Hub, tmp_path: Path) -> Hub:
    """The hub, with mteb's data set as mteb asks for it."""
    rows = write_sets(tmp_path / "data") / "mteb" / "STS16" / "test.jsonl"
    repository = Repository(commits={STS16: {"test.jsonl": Blob(rows)}}, refs={"main": STS16})
    hub.repositories["datasets/mteb/sts16-sts"] = repository
    return hub


@pytest.mark.slow
def test_from_a_published_model_to_a_submission(
    data_hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    """Measured before it was published, from the hub's data; taken by mteb's own command."""
    scores, out = tmp_path / "scores", tmp_path / "submission"
    measured = run(
        *(data_hub, home, "evaluate", tiny_artifact, "--tasks", "STS16", "--out", scores),
        *("--ratios", "1,2,4", "--against", "truncate", "--json"),
    )
    assert measured.returncode == 0, measured.stderr
    found = {
        (s["method"], s["dimensions"]): s["score"] for s in json.loads(measured.stdout)["scores"]
    }
    # Of mteb's own data: the model card has it in its metadata.
    card = json.loads((scores / f"card-{tiny_artifact.name}.json").read_text())
    (task,) = card["tasks"]
    assert (task["dataset"], task["metric"]) == ("mteb/sts16-sts", "cosine_spearman")
    assert task["scores"]["24"] == found["filter", 24]
    send(data_hub, home, tiny_artifact)
    written = run(data_hub, home, "leaderboard", NAME, "--results", scores, "--out", out, "--json")
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout)["tasks"] == ["STS16"]

    meta = load_meta(out / f"{identifier(NAME)}_models.py")
    head = data_hub.repositories[NAME].refs["main"]
    assert (meta.name, meta.revision) == (NAME, head)
    assert meta.embed_dim == [24, 12, 6, 3] and meta.training_datasets == set()
    assert meta.max_tokens and meta.languages == ["eng-Latn"] and meta.citation
    # The model's own score, and that of its smaller size: not the baselines', nor raw.
    results = mteb.ResultCache(out).load_results(models=[meta], load_experiments="match_name")
    read = {
        model.experiment_name: 100 * result.get_score()
        for model in results
        for result in model.task_results
    }
    assert read == {
        None: pytest.approx(found["filter", 24]),
        "embed_dim_12": pytest.approx(found["filter", 12]),
    }

    # `mteb submit-results`, with a clone of an empty results repository on this machine.
    remote = tmp_path / "remote"
    subprocess.run(["git", "init", "-q", "-b", "main", remote], check=True)
    git = {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/embeddings-benchmark/results",
        **{"GIT_CONFIG_KEY_1": "user.name", "GIT_CONFIG_VALUE_1": "A"},
        **{"GIT_CONFIG_KEY_2": "user.email", "GIT_CONFIG_VALUE_2": "a@example.org"},
    }
    environment = {**client_environment(data_hub, home), **git}
    subprocess.run(
        ["git", "-C", remote, "commit", "-q", "--allow-empty", "-m", "start"],
        env={**os.environ, **git},
        check=True,
    )
    submit = ("-m", "mteb", "submit-results", "-m", NAME, "--output-folder", out)
    submitted = prefork(sys.executable).run(*submit, env=environment)
    assert submitted.returncode == 0, submitted.stderr
    committed = subprocess.run(
        ["git", "-C", out / "remote", "show", "--stat=200", "--format=%s"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"results/{NAME.replace('/', '__')}/{head}/STS16.json" in committed, committed


@pytest.mark.slow
def test_results_of_another_model_or_of_local_files_are_refused(
    data_hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    send(data_hub, home, tiny_artifact)
    scores = tmp_path / "scores"
    measured = run(
        *(data_hub, home, "evaluate", NAME, "--data", tmp_path / "data", "--tasks", "STS16"),
        *("--out", scores, "--ratios", "2"),
    )
    assert measured.returncode == 0, measured.stderr
    out = tmp_path / "submission"
    refused = run(data_hub, home, "leaderboard", NAME, "--results", scores, "--out", out)
    assert refused.returncode == 2 and "STS16 was run on local files" in refused.stderr
    for file in (scores / "results").rglob("*.json"):
        file.write_text(file.read_text().replace(head_of(data_hub), "f" * 40))
    refused = run(data_hub, home, "leaderboard", NAME, "--results", scores, "--out", out)
    assert refused.returncode == 2 and "for a leaderboard: none at all" in refused.stderr
    assert not out.exists()


def head_of(hub: Hub) -> str:
    return hub.repositories[NAME].refs["main"]


def test_misuse(run: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("leaderboard", tiny_artifact, "--results", tmp_path, "--out", out)
    fails(result, 2, "is a folder: the leaderboard takes published models")
    result = run("leaderboard", NAME, "--results", tmp_path / "none", "--out", out)
    fails(result, 2, "no such folder")


def test_names_become_identifiers() -> None:
    assert identifier("org/SmolLM2-135M.EmbFilter") == "smollm2_135m_embfilter"
    assert identifier("org/7B") == "model_7b"
