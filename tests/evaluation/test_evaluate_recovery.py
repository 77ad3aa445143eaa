"""Evaluation that is broken off: what was done is kept, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.command_line import Run

pytest.importorskip("mteb", reason="needs st-embfilter[mteb]")
from st_embfilter.evaluation.evaluate import evaluate
from st_embfilter.evaluation.local_data import local_tasks

pytestmark = pytest.mark.slow

# Another process may print the warnings of the libraries' own.
QUIET = {**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
Scores = dict[tuple[str, str, int], float]


def arguments(artifact: Path, data: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--data", str(data), "--out", str(out), "--batch-size", "4", "--device", "cpu"]
    return ["evaluate", str(artifact), *fixed, "--ratios", "1,2", *more]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "st_embfilter", *arguments]


def stored_keys(out: Path) -> list[bytes]:
    content = b"".join(file.read_bytes() for file in out.glob("embeddings/*/keys.bin"))
    return [content[i : i + 16] for i in range(0, len(content) - 15, 16)]


@pytest.fixture(scope="module")
def undisturbed(
    whole_artifact: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scores:
    """The scores of a run that nothing happened to."""
    tasks = local_tasks(sets, [], ["eng"])
    out = tmp_path_factory.mktemp("undisturbed")
    done = evaluate([str(whole_artifact)], tasks, out, ratios=(1, 2), batch_size=4, device="cpu")
    return {(s.task, s.method, s.dimensions): s.score for s in done.scores}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.1, 0.6])
def test_a_killed_run_goes_on(
    run: Run,
    undisturbed: Scores,
    whole_artifact: Path,
    sets: Path,
    tmp_path: Path,
    moment: float,
) -> None:
    """Killed while it encodes; then: the same results, and nothing in the store twice."""
    total = 200
    start = arguments(whole_artifact, sets, tmp_path)
    process = subprocess.Popen(command(*start), env=QUIET, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(stored_keys(tmp_path)) < moment * total:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    kept = stored_keys(tmp_path)
    done = run(*start, "--json")
    assert done.returncode == 0, done.stderr
    after = stored_keys(tmp_path)
    # What was whole when it was killed is still at its place, and was not encoded again.
    whole = len(kept) - len(kept) % 4
    assert after[:whole] == kept[:whole] and len(set(after)) == len(after)
    scores = {
        (s["task"], s["method"], s["dimensions"]): s["score"]
        for s in json.loads(done.stdout)["scores"]
    }
    assert scores == pytest.approx(undisturbed, abs=1e-2)


@pytest.mark.slow
def test_a_full_disk_leaves_finished_tasks(
    run: Run, whole_artifact: Path, sets: Path, tmp_path: Path
) -> None:
    """The embeddings of the first task fit on the disk, those of the second don't."""
    resource = pytest.importorskip("resource")

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    order = ["--tasks", "STS16,TopicsClustering"]
    start = arguments(whole_artifact, sets, tmp_path / "out", *order)
    full = subprocess.run(
        command(*start), env=QUIET, capture_output=True, text=True, preexec_fn=fill_disk
    )
    message = full.stderr.splitlines()[-1]
    assert full.returncode == 1 and "Traceback" not in full.stderr, full.stderr
    assert message.startswith("st-embfilter: error: ") and "can't be written" in message
    kept = {path.name for path in (tmp_path / "out" / "results").rglob("*.json")}
    assert kept == {"STS16.json", "model_meta.json"}
    before = stored_keys(tmp_path / "out")
    again = run(*start)
    assert again.returncode == 0, again.stderr
    after = stored_keys(tmp_path / "out")
    assert after[: len(before)] == before and len(set(after)) == len(after)
