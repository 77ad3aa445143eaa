"""Evaluation: the scores are mteb's, for one encoding, whatever happens in between."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, fails
from evaluation_data import write_rows, write_sets
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from st_embfilter import build_model, save_pretrained

mteb = pytest.importorskip("mteb", reason="needs st-embfilter[mteb]")
from scipy.stats import spearmanr  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from st_embfilter.evaluation.evaluate import evaluate  # noqa: E402
from st_embfilter.evaluation.local_data import local_tasks  # noqa: E402
from st_embfilter.evaluation.methods import BASELINES, FitSample  # noqa: E402
from st_embfilter.evaluation.scores import Score  # noqa: E402
from st_embfilter.evaluation.task_lists import benchmark_tasks  # noqa: E402

# Another process may print the warnings of the libraries' own.
QUIET = {**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For problems as small as these, threads that wait for each other take the most time."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def whole_artifact(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All directions of the tiny model: every τ, and every baseline."""
    model = build_model(tiny, ratio=1, device="cpu")
    return save_pretrained(model, tmp_path_factory.mktemp("artifacts") / "whole")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("data"))


LINES = [f"the {word} of a line {i}" for i, word in enumerate("abcdefghijklmnopqrstuvwxyz" * 8)]


@pytest.fixture(scope="session")
def evaluated(
    whole_artifact: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Score]]:
    """All tasks, ratios and baselines."""
    out = tmp_path_factory.mktemp("scores")
    sample = FitSample(LINES, "lines.txt")
    done = evaluate(
        [str(whole_artifact)],
        local_tasks(sets, [], ["eng"]),
        out,
        ratios=(1, 2),
        against=[name for name in BASELINES if name != "raw"],
        sample=sample,
    )
    assert not done.failures
    return out, done.scores


def named(scores: list[Score], method: str, dimensions: int) -> dict[str, float]:
    return {s.task: s.score for s in scores if (s.method, s.dimensions) == (method, dimensions)}


@pytest.mark.parametrize("k", [48, 24])
def test_scores_are_those_of_plain_mteb(
    evaluated: tuple[Path, list[Score]], whole_artifact: Path, sets: Path, k: int
) -> None:
    """Every kind of task, to the last digit that float32 holds."""
    model = SentenceTransformer(str(whole_artifact), truncate_dim=k, device="cpu")
    expected = {}
    for task in local_tasks(sets, [], ["eng"]):
        results = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
        expected[task.metadata.name] = 100 * results.task_results[0].get_score()
    found = named(evaluated[1], "raw" if k == 48 else "filter", k)
    assert found == pytest.approx(expected, abs=1e-2)
    assert len(found) == 4


def test_sts_is_that_of_a_few_lines_of_scipy(
    evaluated: tuple[Path, list[Score]], whole_artifact: Path, sets: Path
) -> None:
    model = SentenceTransformer(str(whole_artifact), truncate_dim=24, device="cpu")
    lines = (sets / "mteb" / "STS16" / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    left, right = (model.encode([row[side] for row in rows]) for side in ("sentence1", "sentence2"))
    cosines = model.similarity_pairwise(left, right)
    expected = 100 * spearmanr(cosines, [row["score"] for row in rows]).statistic
    assert named(evaluated[1], "filter", 24)["STS16"] == pytest.approx(expected, abs=1e-4)


def test_every_text_is_encoded_once(evaluated: tuple[Path, list[Score]], sets: Path) -> None:
    """For two ratios, twelve columns and four tasks: as many embeddings as there are texts."""
    out, scores = evaluated
    texts = set(LINES)
    for file in sets.rglob("*.jsonl"):
        for row in map(json.loads, file.read_text().splitlines()):
            if file.name == "corpus.jsonl":
                texts.add(f"{row['title']} {row['text']}")
            elif file.name != "train.jsonl":
                texts |= {row[key] for key in ("text", "sentence1", "sentence2") if key in row}
    stored = sum(f.stat().st_size for f in out.glob("embeddings/*/keys.bin")) // 16
    train = 80  # of which mteb draws some
    assert len(texts) <= stored <= len(texts) + train
    methods = {(s.method, s.dimensions) for s in scores}
    assert len(methods) == 2 + 8 + 2, methods


def test_baselines_are_what_they_are_called(
    evaluated: tuple[Path, list[Score]], whole_artifact: Path, tiny: Path, sets: Path
) -> None:
    """The head band, the raw embedding's first numbers and the band auto, the long way."""
    rows = [
        json.loads(line)
        for line in (sets / "mteb" / "STS16" / "test.jsonl").read_text().splitlines()
    ]
    model = build_model(tiny, ratio=2, band="head", device="cpu")
    raw = SentenceTransformer(modules=list(model)[:2], device="cpu")
    auto = build_model(tiny, band="auto", calibration=LINES, device="cpu")
    for name, encode in (
        ("head", model.encode),
        ("auto", auto.encode),
        ("truncate", lambda texts: raw.encode(texts)[:, :24]),
    ):
        left, right = (encode([row[side] for row in rows]) for side in ("sentence1", "sentence2"))
        cosines = np.einsum("nd,nd->n", left, right) / (
            np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        )
        expected = 100 * spearmanr(cosines, [row["score"] for row in rows]).statistic
        assert named(evaluated[1], name, 24)["STS16"] == pytest.approx(expected, abs=1e-3), name


def test_mteb_reads_the_results(
    evaluated: tuple[Path, list[Score]], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word, by warnings or by its log."""
    out, scores = evaluated
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = mteb.ResultCache(out).load_results(load_experiments="match_name")
        metas = read_metas(out)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert all(meta.name == "local/whole" for meta in metas) and len(metas) == 12
    found = {
        (model.experiment_name, result.task_name): 100 * result.get_score()
        for model in loaded
        for result in model.task_results
    }
    assert len(found) == len(scores)
    assert found[("embed_dim_24", "STS16")] == named(scores, "filter", 24)["STS16"]
    assert found[(None, "STS16")] == named(scores, "raw", 48)["STS16"]


def test_tables_and_plot(evaluated: tuple[Path, list[Score]]) -> None:
    out, scores = evaluated
    text = (out / "scores.md").read_text()
    mean = np.mean(list(named(scores, "filter", 24).values()))
    row = next(line for line in text.splitlines() if "| filter | 24 |" in line)
    assert f"| {mean:.2f} |" in row and row.endswith("% |")
    base = np.mean(list(named(scores, "raw", 48).values()))
    assert f"{100 * (mean - base) / base:+.1f}%" in row
    assert "208 texts of lines.txt, without those of the task" in text
    assert "Protocol: mteb's" in text and "not for the leaderboard" in text
    for score in scores:
        if score.method != "raw":
            assert score.low is not None and score.high is not None
            assert score.low <= score.high
    rows = (out / "scores.csv").read_text().splitlines()
    assert len(rows) == len(scores) + 1
    assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_other_models_are_scored_as_they_are(
    whole_artifact: Path, tiny_artifact: Path, sets: Path, tmp_path: Path
) -> None:
    """An artifact of one τ, and a model of words that has no filter at all."""
    tokenizer = WordLevel(
        {word: i for i, word in enumerate(["?", "the", "and", "dog", "cat"])}, "?"
    )
    words = StaticEmbedding(Tokenizer(tokenizer), embedding_dim=8)
    SentenceTransformer(modules=[words]).save(str(tmp_path / "words"))
    done = evaluate(
        [str(whole_artifact)],
        local_tasks(sets, ["TopicsClustering"], ["eng"]),
        tmp_path / "out",
        ratios=(2,),
        against=[str(tiny_artifact), str(tmp_path / "words")],
    )
    own, other, plain = done.scores
    assert [s.method for s in done.scores] == ["filter", "as is", "as is"]
    # The same filter, of the same language model.
    assert (other.dimensions, plain.dimensions) == (24, 8)
    assert other.score == pytest.approx(own.score, abs=1e-2) and plain.score != own.score
    assert "| local/words | as is | 8 |" in (tmp_path / "out" / "scores.md").read_text()


def test_the_papers_protocol_normalizes_but_for_classification(
    whole_artifact: Path, sets: Path, tmp_path: Path
) -> None:
    tasks = ["TopicsClustering", "AmazonCounterfactualClassification"]
    done = evaluate(
        [str(whole_artifact)],
        local_tasks(sets, tasks, ["eng"]),
        tmp_path,
        ratios=(2,),
        paper=True,
    )
    for task in local_tasks(sets, tasks, ["eng"]):
        model = SentenceTransformer(str(whole_artifact), truncate_dim=24, device="cpu")
        if task.metadata.type == "Clustering":
            model.append(__import__("sentence_transformers").models.Normalize())
            model.truncate_dim = None
            model[2].linear.weight = __import__("torch").nn.Parameter(model[2].linear.weight[:24])
        expected = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
        name = task.metadata.name
        score = 100 * expected.task_results[0].get_score()
        assert named(done.scores, "filter", 24)[name] == pytest.approx(score, abs=1e-2), name
    assert "embeddings of length 1" in (tmp_path / "scores.md").read_text()


def read_metas(out: Path) -> list[Any]:
    """Every ModelMeta that mteb finds beside results."""
    files = (out / "results").rglob("model_meta.json")
    read = mteb.models.ModelMeta.model_validate_json_resolved
    return [read(file.read_text()) for file in files]


def command(artifact: Path, data: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--data", str(data), "--out", str(out), "--batch-size", "4", "--device", "cpu"]
    start = [sys.executable, "-m", "st_embfilter", "evaluate", str(artifact)]
    return [*start, *fixed, "--ratios", "1,2", *more]


def stored_keys(out: Path) -> list[bytes]:
    content = b"".join(file.read_bytes() for file in out.glob("embeddings/*/keys.bin"))
    return [content[i : i + 16] for i in range(0, len(content) - 15, 16)]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.1, 0.6])
def test_a_killed_run_goes_on(
    evaluated: tuple[Path, list[Score]],
    whole_artifact: Path,
    sets: Path,
    tmp_path: Path,
    moment: float,
) -> None:
    """Killed while it encodes; then: the same results, and nothing in the store twice."""
    total = 200
    process = subprocess.Popen(
        command(whole_artifact, sets, tmp_path), env=QUIET, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(stored_keys(tmp_path)) < moment * total:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    kept = stored_keys(tmp_path)
    done = subprocess.run(
        [*command(whole_artifact, sets, tmp_path), "--json"],
        env=QUIET,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    after = stored_keys(tmp_path)
    # What was whole when it was killed is still at its place, and was not encoded again.
    whole = len(kept) - len(kept) % 4
    assert after[:whole] == kept[:whole] and len(set(after)) == len(after)
    scores = {
        (s["task"], s["method"], s["dimensions"]): s["score"]
        for s in json.loads(done.stdout)["scores"]
    }
    expected = {
        (s.task, s.method, s.dimensions): s.score
        for s in evaluated[1]
        if s.method in ("raw", "filter")
    }
    assert scores == pytest.approx(expected, abs=1e-2)


@pytest.mark.slow
def test_a_full_disk_leaves_finished_tasks(
    whole_artifact: Path, sets: Path, tmp_path: Path
) -> None:
    """The embeddings of the first task fit on the disk, those of the second don't."""
    resource = pytest.importorskip("resource")

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    order = ["--tasks", "STS16,TopicsClustering"]
    start = command(whole_artifact, sets, tmp_path / "out", *order)
    full = subprocess.run(start, env=QUIET, capture_output=True, text=True, preexec_fn=fill_disk)
    message = full.stderr.splitlines()[-1]
    assert full.returncode == 1 and "Traceback" not in full.stderr, full.stderr
    assert message.startswith("st-embfilter: error: ") and "can't be written" in message
    kept = {path.name for path in (tmp_path / "out" / "results").rglob("*.json")}
    assert kept == {"STS16.json", "model_meta.json"}
    before = stored_keys(tmp_path / "out")
    again = subprocess.run(start, env=QUIET, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    after = stored_keys(tmp_path / "out")
    assert after[: len(before)] == before and len(set(after)) == len(after)


def test_bad_input(
    run: Run, whole_artifact: Path, tiny_artifact: Path, tiny: Path, sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = whole_artifact

    def start(*arguments: object) -> None:
        fails(run("evaluate", *arguments, "--out", out), *expected)

    expected = (2, "give either --benchmark or --tasks")
    start(model)
    start(model, "--benchmark", "paper", "--tasks", "STS12")
    expected = (2, "unknown task: 'STS66' not found. Did you mean: 'STS16'?")
    start(model, "--tasks", "STS66")
    expected = (2, "unknown benchmark: 'MTEB(eng, v9)'", "or: paper")
    start(model, "--benchmark", "MTEB(eng, v9)")
    expected = (2, "CMedQAv1-reranking has no data in eng: its languages are cmn (--languages)")
    start(model, "--tasks", "CMedQAv1-reranking")
    expected = (2, "holds no evaluation sets")
    start(model, "--data", tmp_path)
    expected = (2, "has no STS12: it has")
    start(model, "--data", sets, "--tasks", "STS12")
    expected = (2, "is not an embedding model: it has no modules.json", "st-embfilter build")
    start(tiny, "--data", sets)
    expected = (1, "no such folder, and not org/name on the hub")
    start(tmp_path / "none", "--data", sets)
    expected = (2, "keeps 24 of 48 dimensions, and can't give 32")
    start(tiny_artifact, "--data", sets, "--ratios", "1.5")
    expected = (2, "the head band needs all singular directions", "--ratio 1")
    start(tiny_artifact, "--data", sets, "--against", "head")
    expected = (2, "pca is fitted on text: give some with --fit FILE")
    start(model, "--data", sets, "--against", "pca")
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\n")
    expected = (2, "whitening to 24 dimensions needs more than 24 texts: lines.txt has 2")
    start(model, "--data", sets, "--against", "whitening", "--fit", lines)
    expected = (2, "filter ratio must be from 1")
    start(model, "--data", sets, "--ratios", "0.5")
    expected = (2, "'two' is not a number")
    start(model, "--data", sets, "--ratios", "two")
    expected = (2, "two models are called local/whole")
    start(model, model, "--data", sets, "--tasks", "STS16")


def test_broken_data(run: Run, whole_artifact: Path, sets: Path, tmp_path: Path) -> None:
    """What shows in a file's first line is said before anything is encoded, the rest by task."""

    def broken(change: str) -> Path:
        folder = tmp_path / change.replace("/", "-")
        shutil.copytree(sets, folder)
        return folder

    def start(data: Path, *words: str) -> None:
        fails(run("evaluate", whole_artifact, "--data", data, "--out", data / "out"), 1, *words)

    data = broken("split")
    (data / "mteb" / "AmazonCounterfactualClassification" / "train.jsonl").unlink()
    start(data, "AmazonCounterfactualClassification lacks its train: there is no")
    data = broken("qrels")
    (data / "beir" / "topics" / "qrels" / "test.tsv").unlink()
    start(data, "topics lacks its test: there is no")

    data = broken("column")
    write_rows(data / "mteb" / "STS16" / "test.jsonl", [{"sentence1": "a", "score": 1}])
    write_rows(
        data / "extra" / "TopicsClustering" / "test.jsonl", [{"text": "a", "label": "b"}, {}]
    )
    start(data, "2 of 4 tasks", "STS16: ", "lacks the column sentence2", "has a row without text")
    # The others are done, and in the tables.
    assert "| topics |" in (data / "out" / "scores.md").read_text()
    shutil.copytree(sets / "mteb" / "STS16", data / "mteb" / "STS16", dirs_exist_ok=True)
    shutil.copytree(sets / "extra", data / "extra", dirs_exist_ok=True)
    again = run("evaluate", whole_artifact, "--data", data, "--out", data / "out")
    assert again.returncode == 0, again.stderr
    assert "| STS16 |" in (data / "out" / "scores.md").read_text()


def test_a_mean_of_tasks_counts_once(whole_artifact: Path, sets: Path, tmp_path: Path) -> None:
    """As CQADupstack, of twelve: its parts are scored, and the tables have their mean."""
    from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    parts = local_tasks(sets, ["STS16", "TopicsClustering"], ["eng"])
    parts[1].metadata = parts[1].metadata.model_copy(update={"type": "STS"})

    class Both(AbsTaskAggregate):
        metadata = AggregateTaskMetadata(
            name="Both",
            description="two tasks",
            tasks=parts,
            main_score="cosine_spearman",
            type="STS",
            eval_splits=["test"],
        )

    for _ in range(2):  # anew, and from what is there
        done = evaluate([str(whole_artifact)], [Both()], tmp_path, ratios=(2,))
        assert not done.failures, done.failures
        (score,) = done.scores
        found = mteb.ResultCache(tmp_path).load_results(load_experiments="match_name")
        read = {r.task_name: 100 * r.get_score() for model in found for r in model.task_results}
        assert read.keys() == {"STS16", "TopicsClustering", "Both"}
        assert score.task == "Both" and score.low is None
        assert score.score == pytest.approx(
            (read["STS16"] + read["TopicsClustering"]) / 2, abs=1e-3
        )


def test_the_papers_tasks() -> None:
    """As its Table 1 counts them, and the retrieval tasks that its appendix names."""
    tasks = benchmark_tasks("paper")
    counts = Counter(task.metadata.type for task in tasks)
    assert counts == {
        **{"STS": 10, "Classification": 12, "Clustering": 11, "PairClassification": 3},
        **{"Reranking": 4, "Retrieval": 8, "Summarization": 1},
    }
    retrieval = {task.metadata.name for task in tasks if task.metadata.type == "Retrieval"}
    assert retrieval == {
        *("SciFact", "ArguAna", "NFCorpus", "FiQA2018", "QuoraRetrieval", "SCIDOCS"),
        *("Touche2020", "TRECCOVID"),
    }
