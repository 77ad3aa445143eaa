"""Scores as rows: what the tables and plots are made of."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mteb.abstasks import AbsTask

from st_embfilter.artifact.card import MEASURED_OF
from st_embfilter.evaluation.methods import FILTER, RAW, Method
from st_embfilter.evaluation.mteb_run import Run
from st_embfilter.evaluation.outcomes import interval, load_outcome, resampled_scores
from st_embfilter.evaluation.task_lists import LOCAL
from st_embfilter.layout.manifest import Manifest

# In the order and with the names of the paper's Table 1.
CATEGORIES = {
    "STS": "STS",
    "Classification": "Class.",
    "Clustering": "Clus.",
    "PairClassification": "Pair.",
    "Reranking": "Rerank.",
    "Retrieval": "Retr.",
    "Summarization": "Sum.",
}


@dataclass(frozen=True)
class Score:
    """One method's score on one task.

    Attributes:
        model: Its name.
        method: ``filter``, or a baseline's name.
        dimensions: How many numbers an embedding has.
        task: mteb's name.
        category: mteb's type of task.
        metric: mteb's main score of the task.
        score: That, × 100.
        gain: ``score`` less that of the model's raw embedding, if it was scored.
        low: The gain's 95% interval (paired bootstrap over test items), if the metric is made of
            items.
        high: Its other end.
        revision: The data set's.
    """

    model: str
    method: str
    dimensions: int
    task: str
    category: str
    metric: str
    score: float
    gain: float | None
    low: float | None
    high: float | None
    revision: str

    @property
    def beyond_noise(self) -> bool:
        """Whether 0 is outside the gain's interval."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def collect(run: Run, methods: Sequence[Method], tasks: Iterable[AbsTask]) -> list[Score]:
    """The scores of a run, task by task, of what is done."""
    scores = []
    for task in tasks:
        found = {method.label: run.result(task, method) for method in methods}
        results = {label: result for label, result in found.items() if result is not None}
        done = [method for method in methods if method.label in results]
        # Every method's resamples at once: they are drawn anew for every task.
        resampled = {method.label: _resamples(run, task, method) for method in done}
        raw = next((method.label for method in done if method.name == RAW), None)
        for method in done:
            result = results[method.label]
            gain, ends = None, None
            if raw is not None and method.label != raw:
                gain = float(100 * (result.get_score() - results[raw].get_score()))
                ours, theirs = resampled[method.label], resampled[raw]
                if ours is not None and theirs is not None:
                    ends = interval(100 * (ours - theirs))
            low, high = ends or (None, None)
            scores.append(
                Score(
                    model=run.evaluated.name,
                    method=method.name,
                    dimensions=method.dimensions,
                    task=task.metadata.name,
                    category=task.metadata.type,
                    metric=task.metadata.main_score,
                    score=float(100 * result.get_score()),
                    gain=gain,
                    low=low,
                    high=high,
                    revision=result.dataset_revision,
                )
            )
    return scores


def _resamples(run: Run, task: AbsTask, method: Method) -> Any:
    """A score's bootstrap values, or None where its metric isn't made of items."""
    metric, outcome = load_outcome(run.outcome_path(task, method))
    return resampled_scores(metric, outcome) if outcome else None


def averages(scores: Sequence[Score]) -> dict[str, float]:
    """The mean of every category, and of all tasks (not of the categories: as the paper does)."""
    means = {
        category: float(np.mean([s.score for s in scores if s.category == category]))
        for category in CATEGORIES
        if any(s.category == category for s in scores)
    }
    return means | {"average": float(np.mean([s.score for s in scores]))}


def columns(scores: Sequence[Score]) -> dict[tuple[str, str, int], list[Score]]:
    """The scores of each model, method and dimension that has all tasks, in order.

    An average over fewer tasks could not be compared.
    """
    groups: dict[tuple[str, str, int], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.model, score.method, score.dimensions), []).append(score)
    whole = max((len(group) for group in groups.values()), default=0)
    return {key: group for key, group in groups.items() if len(group) == whole}


def card_results(
    scores: Sequence[Score], manifest: Manifest, about: dict[str, Any]
) -> dict[str, Any]:
    """An artifact's own scores as its model card takes them (``card: results`` of a recipe).

    Args:
        scores: Of one model.
        manifest: The artifact's.
        about: What was run.
    """
    own = [score for score in scores if score.method in (RAW, FILTER)]
    return {
        "command": about["command"],
        "machine": about["machine"],
        **{key: getattr(manifest, key) for key in MEASURED_OF},
        **({"calibration": manifest.calibration} if manifest.calibration else {}),
        "tasks": [
            {
                "name": task["name"],
                "type": next(s.category for s in own if s.task == task["name"]),
                "dataset": None if task["revision"].startswith(LOCAL) else task["dataset"],
                "metric": next(s.metric for s in own if s.task == task["name"]),
                "scores": {str(s.dimensions): s.score for s in own if s.task == task["name"]},
            }
            for task in about["tasks"]
            if any(s.task == task["name"] for s in own)
        ],
    }


def as_csv(scores: Sequence[Score]) -> str:
    """One line a score."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Score.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(score) for score in scores)
    return text.getvalue()


def as_json(scores: Sequence[Score], about: dict[str, Any]) -> str:
    """What was run, and all scores."""
    return json.dumps({**about, "scores": [asdict(s) for s in scores]}, indent=1) + "\n"
