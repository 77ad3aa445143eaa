"""The scores as Markdown, in the layout of the paper's Table 1 and task by task."""

from collections.abc import Sequence
from typing import Any

from st_embfilter.evaluation.methods import RAW
from st_embfilter.evaluation.scores import CATEGORIES, Score, averages, columns
from st_embfilter.evaluation.task_lists import LOCAL

UP, DOWN = "▲", "▼"


def summary(scores: Sequence[Score], about: dict[str, Any]) -> str:
    """What was run, and the averages."""
    return f"{_describe(about)}\n\n{_overview(scores)}\n"


def markdown(scores: Sequence[Score], about: dict[str, Any]) -> str:
    """All tables, with what was run before them."""
    models = list(dict.fromkeys(score.model for score in scores))
    parts = [summary(scores, about)]
    for model in models:
        own = [score for score in scores if score.model == model]
        for k in sorted({score.dimensions for score in own}, reverse=True):
            parts.append(f"### {model}, {k} dimensions\n\n{_detail(own, k)}")
    return "\n\n".join(parts) + "\n"


def _describe(about: dict[str, Any]) -> str:
    """What was run, with which protocol, on what."""
    protocol = {
        "mteb": "mteb's (embeddings as the model gives them)",
        "paper": "the paper's (embeddings of length 1, but for classification)",
    }[about["protocol"]]
    lines = [
        f"`{about['command']}`",
        f"Protocol: {protocol}. mteb {about['mteb']}, on {about['machine']}.",
        *(f"{m['name']}: revision `{m['revision'][:12]}`, {m['about']}." for m in about["models"]),
    ]
    if about.get("fit"):
        lines.append(
            "Fitted baselines (pca, whitening, mean-removal, all-but-the-top, auto): on "
            f"the {about['fit']['texts']:,} texts of {about['fit']['name']}, without those of the "
            f"task that is scored."
        )
    if any(task["revision"].startswith(LOCAL) for task in about["tasks"]):
        lines.append(
            "Tasks were read from local files, which need not be all of mteb's: not for the "
            "leaderboard."
        )
    lines += [f"**{task}**: {note}." for task, note in about["notes"].items()]
    if about.get("failures"):
        lines += [f"**{task} failed**: {why}" for task, why in about["failures"].items()]
    return "  \n".join(lines)


def _overview(scores: Sequence[Score]) -> str:
    """A row for each model, method and dimension: categories, average of all tasks, gain."""
    groups = columns(scores)
    names = [c for c in CATEGORIES if any(s.category == c for s in scores)]
    counts = {c: len({s.task for s in scores if s.category == c}) for c in names}
    head = [*(f"{CATEGORIES[c]} ({counts[c]})" for c in names), f"average ({sum(counts.values())})"]
    raw = {model: averages(own) for (model, name, _), own in groups.items() if name == RAW}
    rows = []
    for (model, name, k), own in groups.items():
        means = averages(own)
        gain = ""
        if model in raw and name != RAW:
            base = raw[model]["average"]
            gain = f"{100 * (means['average'] - base) / base:+.1f}%"
        rows.append([model, name, str(k), *(f"{means[c]:.2f}" for c in [*names, "average"]), gain])
    return _table(["model", "method", "dimensions", *head, "relative gain"], rows, left=2)


def _detail(scores: Sequence[Score], k: int) -> str:
    """A row for each task, a column for each method of k dimensions, and the raw embedding's."""
    raw = {s.task: s for s in scores if s.method == RAW}
    methods = list(dict.fromkeys(s.method for s in scores if s.dimensions == k and s.method != RAW))
    found = {(s.task, s.method): s for s in scores if s.dimensions == k}
    rows = []
    for task in dict.fromkeys(s.task for s in scores):
        cells = [f"{raw[task].score:.2f}"] if raw else []
        rows.append([task, *cells, *(_cell(found.get((task, name))) for name in methods)])
    legend = (
        f"\n\n{UP} better, {DOWN} worse than raw beyond noise: 0 is outside the 95% interval of "
        f"the paired bootstrap over test items. No mark: within noise, or not made of items."
    )
    head = ["task", *([RAW] if raw else []), *methods]
    return _table(head, rows, left=1) + (legend if methods and raw else "")


def _cell(score: Score | None) -> str:
    """A score, marked if its gain is beyond noise."""
    if score is None:
        return ""
    mark = "" if not score.beyond_noise else f" {UP if (score.gain or 0) > 0 else DOWN}"
    return f"{score.score:.2f}{mark}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first columns are words and the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
