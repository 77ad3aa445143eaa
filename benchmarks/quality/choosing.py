"""Every prompt, band and τ on labelled sets, and whether `choose` ranks them without the labels.

    python benchmarks/quality/choosing.py SOURCE --keep DIR [--data DATA] [--dtype bfloat16]

Parts of the data sets, drawn with a seed: 150 pairs of each set of STS, 250 texts of a clustering
(titles; questions of 30 intents), 250 of a classification with few texts to learn from (8 a class
of Banking77, 160 a class of AmazonCounterfactual), and 260 documents of Cranfield, cut to 50 words.
The average is of all ten.
"""

import argparse
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
import torch
from data_sets import STS_TASKS, document, rows, sts_score
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import v_measure_score

from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.choosing.measures import unit
from st_embfilter.choosing.run import each_prompt, try_bands
from st_embfilter.choosing.trial import Trial, choose
from st_embfilter.pipeline.prompts import PROMPTS

Array = NDArray[Any]
# From the embeddings of a task's texts, in their order, to its score × 100.
Score = Callable[[Array], float]
Task = tuple[list[str], Score]
SEEDS = 3
CATEGORIES = {
    "STS": STS_TASKS,
    "clusters": ("StackOverflowTitles", "Banking77 clusters"),
    "classes": ("Banking77", "AmazonCounterfactual"),
    "retrieval": ("Cranfield",),
}


def shuffled(path: Path) -> list[dict[str, Any]]:
    """A file's rows, drawn with a seed."""
    found = rows(path)
    random.Random(1).shuffle(found)
    return found


def pairs(drawn: list[dict[str, Any]]) -> Task:
    """A set of STS."""
    gold, half = [row["score"] for row in drawn], len(drawn)

    def score(embeddings: Array) -> float:
        units = unit(embeddings)
        return sts_score(units[:half], units[half:], gold)

    return [row["sentence1"] for row in drawn] + [row["sentence2"] for row in drawn], score


def clusters(drawn: list[dict[str, Any]]) -> Task:
    """A clustering."""
    labels = [str(row["label"]) for row in drawn]

    def score(embeddings: Array) -> float:
        found = (
            KMeans(len(set(labels)), n_init=1, random_state=seed, max_iter=60).fit_predict(
                embeddings
            )
            for seed in range(SEEDS)
        )
        return 100 * float(np.mean([v_measure_score(labels, one) for one in found]))

    return [row["text"] for row in drawn], score


def classes(learned: list[dict[str, Any]], asked: list[dict[str, Any]], each: int) -> Task:
    """A classification with few texts to learn from."""
    by_label: dict[Any, list[str]] = {}
    for row in learned:
        by_label.setdefault(row["label"], []).append(row["text"])
    few = [(text, label) for label, texts in by_label.items() for text in texts[:each]]
    labels, gold = [label for _, label in few], [row["label"] for row in asked]

    def score(embeddings: Array) -> float:
        model = LogisticRegression(max_iter=100).fit(embeddings[: len(few)], labels)
        return 100 * float(np.mean(model.predict(embeddings[len(few) :]) == gold))

    return [text for text, _ in few] + [row["text"] for row in asked], score


def retrieval(data: Path, most: int, words: int) -> Task:
    """Cranfield, a part of it: nDCG@10."""
    (file,) = data.rglob("*.tsv")
    relevant: dict[str, dict[str, int]] = {}
    for line in file.read_text().splitlines()[1:]:
        query, name, grade = line.split("\t")
        relevant.setdefault(query, {})[name] = max(int(float(grade)), 0)
    needed = {name for found in relevant.values() for name in found}
    drawn = [
        r for i, r in enumerate(rows(data / "corpus.jsonl")) if r["_id"] in needed or i % 3 == 0
    ]
    drawn = drawn[:most]
    names = np.array([row["_id"] for row in drawn])
    grades = {
        query: {name: grade for name, grade in found.items() if name in set(names)}
        for query, found in relevant.items()
    }
    queries = [row for row in rows(data / "queries.jsonl") if grades.get(row["_id"])]
    gains = 1 / np.log2(np.arange(2, 12))

    def score(embeddings: Array) -> float:
        units = unit(embeddings)
        cosines = units[: len(queries)] @ units[len(queries) :].T
        found = []
        for row, query in zip(cosines, queries, strict=True):
            graded = grades[query["_id"]]
            top = [graded.get(name, 0) for name in names[np.argsort(-row)[:10]]]
            best = sorted(graded.values(), reverse=True)[:10]
            ideal = float(np.dot(best, gains[: len(best)]))
            found.append(float(np.dot(top, gains)) / ideal if ideal else 0)
        return 100 * float(np.mean(found))

    texts = [" ".join(document(row).split()[:words]) for row in drawn]
    return [row["text"] for row in queries] + texts, score


def read_tasks(data: Path) -> dict[str, Task]:
    """All ten."""
    mteb = data / "mteb"
    tasks = {name: pairs(shuffled(mteb / name / "test.jsonl")[:150]) for name in STS_TASKS}
    titles = shuffled(data / "extra/StackOverflowTitlesClustering/test.jsonl")
    tasks["StackOverflowTitles"] = clusters(titles[:250])
    banking = shuffled(mteb / "Banking77Classification/test.jsonl")
    intents = set(random.Random(2).sample(sorted({row["label"] for row in banking}), 30))
    of_intents = [row for row in banking if row["label"] in intents]
    tasks["Banking77 clusters"] = clusters(of_intents[:250])
    learned = shuffled(mteb / "Banking77Classification/train.jsonl")
    tasks["Banking77"] = classes(learned, banking[:250], 8)
    amazon = mteb / "AmazonCounterfactualClassification"
    asked = rows(amazon / "test.jsonl")[:250]
    tasks["AmazonCounterfactual"] = classes(shuffled(amazon / "train.jsonl"), asked, 160)
    tasks["Cranfield"] = retrieval(data / "beir/cranfield", 260, 50)
    return tasks


def score_settings(
    arguments: argparse.Namespace, tasks: dict[str, Task]
) -> Iterator[tuple[Trial, dict[str, float]]]:
    """Each setting on the probes, and its scores by task."""
    say: Callable[[str], None] = lambda said: print(said, file=sys.stderr)  # noqa: E731
    checkpoint, dtype = find_checkpoint(arguments.source), getattr(torch, arguments.dtype)
    texts = list(dict.fromkeys(text for asked, _ in tasks.values() for text in asked))
    places = {text: place for place, text in enumerate(texts)}
    for prompted in each_prompt(checkpoint, arguments.prompts, dtype, "cpu", arguments.keep, say):
        raw = prompted.embed(texts, describe=f"{prompted.prompt}: labelled").astype(np.float64)
        trials = try_bands(prompted, [])
        for trial, (_, _, matrix) in zip(trials, prompted.filters, strict=True):
            moved = raw if matrix is None else raw @ matrix.T
            yield (
                trial,
                {
                    name: score(moved[[places[text] for text in asked]])
                    for name, (asked, score) in tasks.items()
                },
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--keep", type=Path, required=True, help="the folder for embeddings")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--prompts", nargs="*", default=list(PROMPTS))
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # Logistic regression says that it could go on.
    scored = list(score_settings(arguments, read_tasks(arguments.data)))
    print_settings(scored)
    print_ranks(scored)


def print_settings(scored: list[tuple[Trial, dict[str, float]]]) -> None:
    """A line a setting."""
    names = (*CATEGORIES, "average", *scored[0][0].scores, "total")
    print(f"| prompt | band | dimensions | {' | '.join(names)} |")
    print(f"|---|---|{'---:|' * (len(names) + 1)}")
    for trial, found in scored:
        cells = [np.mean([found[task] for task in tasks]) for tasks in CATEGORIES.values()]
        cells += [np.mean(list(found.values())), *trial.scores.values(), trial.total]
        shown = " | ".join(f"{cell:.1f}" for cell in cells)
        print(f"| {trial.prompt.splitlines()[0]} | {trial.band} | {trial.dimensions} | {shown} |")


def print_ranks(scored: list[tuple[Trial, dict[str, float]]]) -> None:
    """How the choice compares with the labels."""
    trials, found = zip(*scored, strict=True)
    labelled = {
        **{
            name: np.array([np.mean([row[task] for task in tasks]) for row in found])
            for name, tasks in CATEGORIES.items()
        },
        "average": np.array([np.mean(list(row.values())) for row in found]),
    }
    own = {name: [trial.scores[name] for trial in trials] for name in trials[0].scores}
    own["total"] = [trial.total for trial in trials]
    print(f"\n| Spearman, {len(trials)} settings | {' | '.join(labelled)} |")
    print(f"|---|{'---:|' * len(labelled)}")
    for name, values in own.items():
        cells = (f"{spearmanr(values, one).statistic:.2f}" for one in labelled.values())
        print(f"| {name} | {' | '.join(cells)} |")
    chosen = trials.index(choose(trials))
    averages = labelled["average"]
    best = trials[int(averages.argmax())]
    print(
        f"\nChosen: {trials[chosen].prompt}, {trials[chosen].band}, {trials[chosen].dimensions}: "
        f"{averages[chosen]:.2f}; the best by the labels: {best.prompt}, {best.band}, "
        f"{best.dimensions}: {averages.max():.2f}."
    )


if __name__ == "__main__":
    main()
