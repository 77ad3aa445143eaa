"""The data sets: their texts, and the scores of those of STS."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

STS_TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R")
# The two sentences and the score of every pair.
Pairs = tuple[list[str], list[str], list[float]]


def rows(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def document(row: dict[str, Any]) -> str:
    """As mteb gives it to a model."""
    return f"{row['title']} {row['text']}".strip()


def all_texts(data: Path) -> set[str]:
    """Of every test set, as a model gets them; of the retrieval task, the documents."""
    texts = {document(row) for path in data.glob("beir/*/corpus.jsonl") for row in rows(path)}
    for path in (*data.glob("mteb/*/test.jsonl"), *data.glob("extra/*/test.jsonl")):
        for row in rows(path):
            texts |= {row[key] for key in ("sentence1", "sentence2", "text") if key in row}
    return texts


def read_tasks(data: Path, names: Sequence[str] = STS_TASKS) -> dict[str, Pairs]:
    """The named sets in the layout of ``mteb``'s rows."""
    tasks = {}
    for name in names:
        pairs = rows(data / "mteb" / name / "test.jsonl")
        tasks[name] = (
            [pair["sentence1"] for pair in pairs],
            [pair["sentence2"] for pair in pairs],
            [pair["score"] for pair in pairs],
        )
    return tasks


def unique_texts(tasks: dict[str, Pairs]) -> list[str]:
    """Every text once: many sentences are in more than one pair."""
    return sorted({text for left, right, _ in tasks.values() for text in left + right})


def sts_score(left: np.ndarray, right: np.ndarray, gold: list[float]) -> float:
    """100 × Spearman's correlation of the cosines of embeddings of length 1 with the scores."""
    return 100 * float(spearmanr((left * right).sum(axis=1), gold).statistic)


def scores_by_task(
    tasks: dict[str, Pairs], texts: list[str], columns: Sequence[np.ndarray]
) -> dict[str, list[float]]:
    """100 × Spearman's correlation of cosine similarities with the scores, and the average.

    Args:
        tasks: As :func:`read_tasks` gives them.
        texts: Those of the embeddings' rows.
        columns: Embeddings ``(texts, dimensions)``, a table's column each.
    """
    places = {text: place for place, text in enumerate(texts)}
    units = [column / np.linalg.norm(column, axis=1, keepdims=True) for column in columns]
    scores = {}
    for name, (left, right, gold) in tasks.items():
        first, second = ([places[text] for text in side] for side in (left, right))
        scores[name] = [sts_score(unit[first], unit[second], gold) for unit in units]
    return {**scores, "average": np.mean(list(scores.values()), axis=0).tolist()}
