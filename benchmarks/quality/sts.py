"""STS12-16 and SICK-R: Spearman of cosine, raw against filtered, in one table.

    python benchmarks/quality/sts.py MODEL [--data DIR] [--prompt prompteol] [--format exact]

One encoding serves every column: with all d dimensions kept the filter is a rotation, so the whole
embedding is the raw one, and its first d // τ numbers are the filtered one.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

from data_sets import STS_TASKS, Pairs, read_tasks, scores_by_task, unique_texts
from machine import describe_machine

from st_embfilter import build_model

RATIOS = (2, 4, 8)


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
    parser.add_argument("--tasks", default=",".join(STS_TASKS))
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
        band="edge",
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
