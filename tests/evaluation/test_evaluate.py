"""Evaluation: the scores are mteb's, for one encoding."""

import json
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from st_embfilter import build_model

mteb = pytest.importorskip("mteb", reason="needs st-embfilter[mteb]")
from scipy.stats import spearmanr  # noqa: E402

from st_embfilter.evaluation.evaluate import evaluate  # noqa: E402
from st_embfilter.evaluation.local_data import local_tasks  # noqa: E402
from st_embfilter.evaluation.methods import BASELINES, FitSample  # noqa: E402
from st_embfilter.evaluation.scores import Score  # noqa: E402
from st_embfilter.evaluation.task_lists import benchmark_tasks  # noqa: E402

pytestmark = pytest.mark.slow

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
    """For two ratios, thirteen columns and four tasks: as many embeddings as there are texts."""
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
    # Of what is fitted to k dimensions, auto alone has all of them too.
    assert len(methods) == 2 + 8 + 2 + 1, methods


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
    auto = build_model(tiny, band="auto", ratio=1, calibration=LINES, device="cpu")
    for name, k, encode in (
        ("head", 24, model.encode),
        ("auto", 48, auto.encode),
        ("auto", 24, lambda texts: auto.encode(texts)[:, :24]),
        ("truncate", 24, lambda texts: raw.encode(texts)[:, :24]),
    ):
        left, right = (encode([row[side] for row in rows]) for side in ("sentence1", "sentence2"))
        cosines = np.einsum("nd,nd->n", left, right) / (
            np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        )
        expected = 100 * spearmanr(cosines, [row["score"] for row in rows]).statistic
        assert named(evaluated[1], name, k)["STS16"] == pytest.approx(expected, abs=1e-3), name


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
    assert all(meta.name == "local/whole" for meta in metas) and len(metas) == 13
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


def read_metas(out: Path) -> list[Any]:
    """Every ModelMeta that mteb finds beside results."""
    files = (out / "results").rglob("model_meta.json")
    read = mteb.models.ModelMeta.model_validate_json_resolved
    return [read(file.read_text()) for file in files]
