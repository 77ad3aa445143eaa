"""The band auto against the plain edge and fitted baselines, with intervals, from an evaluation.

    TEXTS=st_embfilter/pipeline/calibration_texts.txt
    st-embfilter evaluate DIR --data DATA --out OUT --ratios 1,2,4,8 \\
        --against auto,whitening,all-but-the-top --fit $TEXTS
    python benchmarks/quality/auto_band.py OUT $TEXTS

DIR is an artifact that was built with --band edge --ratio 1. Every difference is that of averages
over data sets, with the 95% interval of a paired bootstrap over their items.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from st_embfilter.evaluation.methods import FILTER, RAW, FitSample
from st_embfilter.evaluation.outcomes import interval, load_outcome, resampled_scores

Key = tuple[str, int]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="what st-embfilter evaluate wrote")
    parser.add_argument("fit", type=Path, help="the text that it was given with --fit")
    arguments = parser.parse_args()
    evaluation = json.loads((arguments.out / "scores.json").read_text(encoding="utf-8"))
    lines = arguments.fit.read_text(encoding="utf-8").splitlines()
    digest = FitSample(lines, arguments.fit.name).digest
    print(f"`{evaluation['command']}`  \n{evaluation['models'][0]['about']}\n")

    rows = evaluation["scores"]
    scores: dict[str, dict[Key, float]] = {}
    for row in rows:
        scores.setdefault(row["task"], {})[row["method"], row["dimensions"]] = row["score"]
    width = next(row["dimensions"] for row in rows if row["method"] == RAW)
    sizes = sorted({row["dimensions"] for row in rows if row["method"] == "auto"}, reverse=True)
    groups = group_tasks(rows)
    draws = {task: read_draws(arguments.out, task, found, digest) for task, found in scores.items()}

    columns = " | ".join(f"{name} ({len(tasks)})" for name, tasks in groups.items())
    print(f"| dimensions | | {columns} |\n|---|---|{'---:|' * len(groups)}")
    shown: list[Key] = [(RAW, width), ("all-but-the-top", width)]
    for k in sizes:
        # To keep all dimensions is nothing for an orthonormal band.
        shown += [(FILTER, k), ("whitening", k)] if k < width else []
        shown += [("auto", k)]
    for method in shown:
        means = [np.mean([scores[task][method] for task in tasks]) for tasks in groups.values()]
        cells = " | ".join(f"{mean:.2f}" for mean in means)
        print(f"| {method[1]} | {'edge' if method[0] == FILTER else method[0]} | {cells} |")

    print(f"\n| auto less | dimensions | {columns} |\n|---|---|{'---:|' * len(groups)}")
    for other in (FILTER, "whitening", "all-but-the-top"):
        for k in (k for k in sizes if k < width or other == "all-but-the-top"):
            theirs = (other, width if other == "all-but-the-top" else k)
            cells = " | ".join(
                difference(scores, draws, tasks, ("auto", k), theirs) for tasks in groups.values()
            )
            print(f"| {'edge' if other == FILTER else other} | {k} | {cells} |")


def group_tasks(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The sets by what is asked of them."""
    categories = {row["task"]: row["category"] for row in rows}
    groups: dict[str, list[str]] = {}
    for task, category in categories.items():
        groups.setdefault(category, []).append(task)
    groups["all"] = list(categories)
    return groups


def read_draws(
    out: Path, task: str, methods: dict[Key, float], digest: str
) -> dict[Key, np.ndarray | None]:
    """A task's score in every resample, by method; None where it isn't made of items."""
    draws: dict[Key, np.ndarray | None] = {}
    for name, k in methods:
        if name == RAW:
            continue
        kwargs = (
            f"embed_dim_{k}" if name == FILTER else f"embed_dim_{k}__fit_{digest}__method_{name}"
        )
        (path,) = out.glob(f"outcomes/*/*/experiments/{kwargs}/{task}.npz")
        metric, outcome = load_outcome(path)
        draws[name, k] = 100 * resampled_scores(metric, outcome) if outcome else None
    return draws


def difference(
    scores: dict[str, dict[Key, float]],
    draws: dict[str, dict[Key, np.ndarray | None]],
    tasks: Sequence[str],
    ours: Key,
    theirs: Key,
) -> str:
    """As in ``+1.01 [0.80, 1.22]``."""
    mean = np.mean([scores[task][ours] - scores[task][theirs] for task in tasks])
    pairs = [(draws[task][ours], draws[task][theirs]) for task in tasks]
    ends = interval(np.mean([one - other for one, other in pairs], axis=0))  # type: ignore[operator]
    assert ends is not None
    return f"{mean:+.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


if __name__ == "__main__":
    main()
