"""What a score is made of, item by item, so that a difference can be told from noise.

mteb keeps a task's score. Whether one method is better than another on it shows in the items of its
test set: both methods are scored on the same resamples of them (paired bootstrap).
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mteb.abstasks import AbsTask, AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.results import TaskResult
from numpy.typing import NDArray
from scipy.stats import rankdata

from st_embfilter.files import replace_file, writing

Array = NDArray[np.float64]
# By split and subset: rows of numbers, a column an item.
Outcome = dict[str, Array]
RESAMPLES = 1000
BLOCK = 20_000_000
LEVEL = 0.95


class Recorder:
    """Gathers a task's outcome while mteb evaluates it.

    Args:
        task: Will be evaluated. Its per-query scores are overheard.
        predictions: A folder for mteb to write its predictions to.
    """

    def __init__(self, task: AbsTask, predictions: Path) -> None:
        self.task = task
        self._queries: Outcome = {}
        if isinstance(task, AbsTaskRetrieval):
            # A thousand documents a query, as JSON, would be too much.
            self.predictions: Path | None = None
            specific = task.task_specific_scores

            def overhear(scores: Any, *args: Any, **kwargs: Any) -> Any:
                self._keep_queries(scores, f"{kwargs['hf_split']}/{kwargs['hf_subset']}")
                return specific(scores, *args, **kwargs)

            task.task_specific_scores = overhear  # type: ignore[method-assign]
        else:
            self.predictions = predictions

    def outcome(self, result: TaskResult) -> Outcome | None:
        """The items of an evaluated task, or None where its metric isn't made of items."""
        if self._queries:
            return self._queries
        if isinstance(self.task, AbsTaskClassification | AbsTaskSTS | AbsTaskPairClassification):
            return self._of_predictions()
        measures = {
            f"{split}/{entry['hf_subset']}": _flat(entry["v_measures"])
            for split, entries in result.scores.items()
            for entry in entries
            if "v_measures" in entry
        }
        return measures or None

    def _keep_queries(self, scores: Mapping[str, Mapping[str, float]], part: str) -> None:
        # mteb's ndcg_at_10 is called ndcg_cut_10 by the library that computes it.
        metric = self.task.metadata.main_score.replace("_at_", "_cut_")
        if all(metric in values for values in scores.values()):
            self._queries[part] = np.array([[values[metric] for values in scores.values()]])

    def _of_predictions(self) -> Outcome | None:
        assert self.predictions is not None
        path = self.predictions / self.task.prediction_file_name
        found = json.loads(path.read_text(encoding="utf-8"))
        outcome: Outcome = {}
        for subset, splits in found.items():
            if subset == "mteb_model_meta":
                continue
            for split, predicted in splits.items():
                rows = self.task.dataset
                rows = rows[subset] if rows is not None and subset in rows else rows
                items = self._items(predicted, rows[split])  # type: ignore[index]
                if items is None:
                    return None
                outcome[f"{split}/{subset}"] = items
        return outcome

    def _items(self, predicted: Any, rows: Any) -> Array | None:
        task, metric = self.task, self.task.metadata.main_score
        if isinstance(task, AbsTaskSTS) and metric == "cosine_spearman":
            return np.array([predicted["cosine_scores"], rows["score"]], np.float64)
        if isinstance(task, AbsTaskPairClassification) and metric in ("max_ap", "cosine_ap"):
            labels = rows[task.label_column_name]
            # Some sets hold all their pairs in one row.
            labels = labels[0] if len(rows) == 1 else labels
            return np.array([predicted["cosine_scores"], labels], np.float64)
        if isinstance(task, AbsTaskClassification) and metric == "accuracy":
            gold = np.array(rows[task.label_column_name])
            right: Array = np.mean([np.array(one) == gold for one in predicted], axis=0)
            return right[None]
        return None


def _flat(measures: Any) -> Array:
    """V-measures of all samples of a clustering task, or by level of the hierarchy."""
    levels = measures.values() if isinstance(measures, dict) else [measures]
    return np.array([[value for level in levels for value in level]], np.float64)


def save_outcome(path: Path, outcome: Outcome | None, metric: str) -> None:
    """Write an outcome beside its metric's name; the file appears whole."""
    content: dict[str, Any] = {
        part.replace("/", "|"): items for part, items in (outcome or {}).items()
    }
    with writing(path), replace_file(path) as fresh, fresh.open("wb") as file:
        np.savez_compressed(file, metric=np.array(metric), **content)


def load_outcome(path: Path) -> tuple[str, Outcome]:
    """What :func:`save_outcome` wrote."""
    with np.load(path, allow_pickle=False) as content:
        parts = {part: content[part] for part in content.files if part != "metric"}
        return str(content["metric"]), parts


def resampled_scores(metric: str, outcome: Outcome) -> Array:
    """The score on resamples of the items ``(resamples,)``, the same ones for every method.

    Of several splits or languages, it is their mean, as mteb's main score.
    """
    statistic = STATISTICS.get(metric, weighted_mean)
    scores = []
    for items in outcome.values():
        # In blocks: 1,000 resamples of 100,000 items would be 800 MB.
        block = min(RESAMPLES, max(1, BLOCK // items.shape[1]))
        parts = [
            statistic(_draw_resamples(items.shape[1], block, start), items)
            for start in range(0, RESAMPLES, block)
        ]
        scores.append(np.concatenate(parts)[:RESAMPLES])
    mean: Array = np.mean(scores, axis=0)
    return mean


@lru_cache(maxsize=1)
def _draw_resamples(count: int, resamples: int, seed: int) -> Array:
    """How often each of ``count`` items is in each resample ``(resamples, count)``."""
    generator = np.random.default_rng(seed)
    return np.array(
        [
            np.bincount(generator.integers(0, count, count), minlength=count)
            for _ in range(resamples)
        ],
        np.float64,
    )


def interval(values: Array) -> tuple[float, float] | None:
    """The central 95% of bootstrap values, without those that are not defined."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [edge, 1 - edge])
    return float(low), float(high)


def weighted_mean(weights: Array, items: Array) -> Array:
    """The mean of the first row under weights ``(resamples, items)``."""
    mean: Array = weights @ items[0] / weights.sum(axis=1)
    return mean


def weighted_spearman(weights: Array, items: Array) -> Array:
    """The correlation of both rows' ranks; the ranks stay those in the whole set.

    NaN where a resample's values are all the same.
    """
    first, second = rankdata(items[0]), rankdata(items[1])
    total = weights.sum(axis=1)

    def covariance(one: Array, other: Array) -> Array:
        product: Array = weights @ (one * other) / total
        product -= (weights @ one / total) * (weights @ other / total)
        return product

    spread = covariance(first, first) * covariance(second, second)
    spread[spread <= 0] = np.nan
    correlation: Array = covariance(first, second) / np.sqrt(spread)
    return correlation


def weighted_average_precision(weights: Array, items: Array) -> Array:
    """Average precision of scores (first row) for labels 0 and 1 (second row)."""
    order = np.argsort(-items[0], kind="stable")
    weights, labels = weights[:, order], items[1][order]
    found = np.cumsum(weights * labels, axis=1)
    precision = found / np.maximum(np.cumsum(weights, axis=1), 1)
    result: Array = (weights * labels * precision).sum(axis=1) / np.maximum(found[:, -1], 1)
    return result


STATISTICS: dict[str, Callable[[Array, Array], Array]] = {
    "cosine_spearman": weighted_spearman,
    "max_ap": weighted_average_precision,
    "cosine_ap": weighted_average_precision,
}
