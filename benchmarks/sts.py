"""STS12-16 and SICK-R: Spearman of cosine, raw against filtered, in one table.

    python benchmarks/sts.py MODEL [--data DIR] [--ratios 2,4,8] [--prompt prompteol]

One encoding serves every column: with all d dimensions kept the filter is a rotation, so the whole
embedding is the raw one, and its first d // τ numbers are the filtered one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from machine import describe_machine
from scipy.stats import spearmanr

from st_embfilter import build_model

TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R")


def read_pairs(path: Path) -> tuple[list[str], list[str], list[float]]:
    """The two sentences and the score of every row."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return (
        [row["sentence1"] for row in rows],
        [row["sentence2"] for row in rows],
        [row["score"] for row in rows],
    )


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row by row."""
    products = (left * right).sum(axis=1)
    return products / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--ratios", default="2,4,8")
    parser.add_argument("--prompt", default="prompteol")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    arguments = parser.parse_args()
    ratios = [int(ratio) for ratio in arguments.ratios.split(",")]

    tasks = {task: read_pairs(arguments.data / "mteb" / task / "test.jsonl") for task in TASKS}
    model = build_model(arguments.model, ratio=1, prompt=arguments.prompt, progress=True)
    texts = sorted({text for left, right, _ in tasks.values() for text in left + right})
    embeddings = model.encode(texts, batch_size=64, show_progress_bar=True)
    rows = {text: row for row, text in enumerate(texts)}
    width = embeddings.shape[1]

    scores: dict[str, list[float]] = {}
    for task, (left, right, gold) in tasks.items():
        first = embeddings[[rows[text] for text in left]]
        second = embeddings[[rows[text] for text in right]]
        scores[task] = [
            100 * float(spearmanr(cosines(first[:, :k], second[:, :k]), gold).statistic)
            for k in (width, *(width // ratio for ratio in ratios))
        ]
    scores["average"] = np.mean(list(scores.values()), axis=0).tolist()

    print(f"{describe_machine()}\nprompt: {model.tokenizer.init_kwargs['embfilter_template']}\n")
    names = [f"raw ({width})", *(f"τ = {ratio} ({width // ratio})" for ratio in ratios)]
    print(f"| task | pairs | {' | '.join(names)} |")
    print(f"|---|---|{'---|' * len(names)}")
    for task, values in scores.items():
        count = f"{len(tasks[task][2]):,}" if task in tasks else ""
        print(f"| {task} | {count} | {' | '.join(f'{value:.2f}' for value in values)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"columns": names, "scores": scores}, indent=1))


if __name__ == "__main__":
    main()
