"""STS12-16 and SICK-R: Spearman of cosine, raw against filtered, in one table.

    python benchmarks/sts.py MODEL [--data DIR] [--prompt prompteol] [--format exact]

One encoding serves every column: with all d dimensions kept the filter is a rotation, so the whole
embedding is the raw one, and its first d // τ numbers are the filtered one.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import describe_machine
from scipy.stats import spearmanr

from st_embfilter import build_model

TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R")
RATIOS = (2, 4, 8)
# The two sentences and the score of every pair.
Pairs = tuple[list[str], list[str], list[float]]


def read_tasks(data: Path, names: Sequence[str] = TASKS) -> dict[str, Pairs]:
    """The named sets in the layout of ``mteb``'s rows."""
    tasks = {}
    for name in names:
        lines = (data / "mteb" / name / "test.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        tasks[name] = (
            [row["sentence1"] for row in rows],
            [row["sentence2"] for row in rows],
            [row["score"] for row in rows],
        )
    return tasks


def unique_texts(tasks: dict[str, Pairs]) -> list[str]:
    """Every text once: many sentences are in more than one pair."""
    return sorted({text for left, right, _ in tasks.values() for text in left + right})


def scores_by_task(
    tasks: dict[str, Pairs], texts: list[str], columns: Sequence[np.ndarray]
) -> dict[str, list[float]]:
    """100 × Spearman's correlation of cosine similarities with the scores, and the average.

    Args:
        tasks: As :func:`read_tasks` gives them.
        texts: Those of the embeddings' rows.
        columns: Embeddings ``(texts, dimensions)``, a table's column each.
    """
    rows = {text: row for row, text in enumerate(texts)}
    units = [column / np.linalg.norm(column, axis=1, keepdims=True) for column in columns]
    scores = {}
    for name, (left, right, gold) in tasks.items():
        first, second = ([rows[text] for text in side] for side in (left, right))
        cosines = [(unit[first] * unit[second]).sum(axis=1) for unit in units]
        scores[name] = [100 * float(spearmanr(column, gold).statistic) for column in cosines]
    return {**scores, "average": np.mean(list(scores.values()), axis=0).tolist()}


def print_table(
    tasks: dict[str, Pairs], columns: list[str], scores: dict[str, list[float]]
) -> None:
    """A Markdown table on standard output."""
    print(f"| task | pairs | {' | '.join(columns)} |")
    print(f"|---|---|{'---|' * len(columns)}")
    for task, values in scores.items():
        count = f"{len(tasks[task][2]):,}" if task in tasks else ""
        print(f"| {task} | {count} | {' | '.join(f'{value:.2f}' for value in values)} |")


def sts_arguments(document: str) -> argparse.ArgumentParser:
    """The arguments that the benchmarks on these sets share."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", default=",".join(TASKS))
    return parser


def main() -> None:
    """Run the benchmark."""
    parser = sts_arguments(__doc__)
    parser.add_argument("--prompt", default="prompteol")
    parser.add_argument("--format", default="portable", choices=("portable", "exact"))
    arguments = parser.parse_args()

    tasks = read_tasks(arguments.data, arguments.tasks.split(","))
    texts = unique_texts(tasks)
    model = build_model(
        arguments.model,
        ratio=1,
        prompt=arguments.prompt,
        format=arguments.format,
        progress=True,
    )
    embeddings = model.encode(texts, batch_size=64, show_progress_bar=True)
    width = embeddings.shape[1]
    sizes = [width, *(width // ratio for ratio in RATIOS)]
    columns = [f"raw ({width})", *(f"τ = {r} ({width // r})" for r in RATIOS)]
    scores = scores_by_task(tasks, texts, [embeddings[:, :k] for k in sizes])

    print(f"{describe_machine()}\nprompt: {arguments.prompt}, form: {arguments.format}\n")
    print_table(tasks, columns, scores)


if __name__ == "__main__":
    main()
