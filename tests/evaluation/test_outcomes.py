"""Resampled scores: weights are repetitions, and a difference beyond noise is told from noise."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mteb", reason="needs st-embfilter[mteb]")
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from st_embfilter.evaluation.outcomes import (
    interval,
    load_outcome,
    resampled_scores,
    save_outcome,
    weighted_average_precision,
    weighted_mean,
    weighted_spearman,
)

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, count=st.integers(5, 40))
def test_weights_of_one_give_the_score_itself(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    items = np.array([generator.normal(size=count), generator.integers(0, 6, count)], float)
    weights = np.ones((1, count))
    assert weighted_mean(weights, items)[0] == pytest.approx(items[0].mean())
    if len(set(items[1])) > 1:
        expected = spearmanr(items[0], items[1]).statistic
        assert weighted_spearman(weights, items)[0] == pytest.approx(expected)
    items[1] = items[1] > 2
    if items[1].any():
        expected = average_precision_score(items[1], items[0])
        assert weighted_average_precision(weights, items)[0] == pytest.approx(expected)


@given(seed=SEEDS)
def test_weights_are_repetitions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    items = np.array([generator.normal(size=12), generator.integers(0, 2, 12)], float)
    counts = generator.integers(0, 3, 12)
    repeated = np.repeat(items, counts, axis=1)
    if not repeated[1].any():
        return
    found = weighted_average_precision(counts[None].astype(float), items)[0]
    assert found == pytest.approx(average_precision_score(repeated[1], repeated[0]))
    mean = weighted_mean(counts[None].astype(float), items)[0]
    assert mean == pytest.approx(repeated[0].mean(), abs=1e-6)


def test_noise_and_a_difference() -> None:
    """The interval's width is that of statistics, and it covers what is not there."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=400)
    outcome = {"test/default": base[None]}
    values = resampled_scores("accuracy", outcome)
    assert values.std() == pytest.approx(base.std() / 20, rel=0.1)
    noisy = {"test/default": (base + generator.normal(size=400) * 0.1)[None]}
    low, high = interval(resampled_scores("accuracy", noisy) - values) or (1, 1)
    assert low < 0 < high
    better = {"test/default": (base + 0.05 + generator.normal(size=400) * 0.1)[None]}
    low, high = interval(resampled_scores("accuracy", better) - values) or (0, 0)
    assert 0 < low < 0.05 < high
    assert interval(np.array([np.nan, np.nan])) is None


def test_splits_count_the_same_and_files_keep_all(tmp_path: Path) -> None:
    outcome = {"test/en": np.zeros((1, 1000)), "test/en-ext": np.ones((1, 10))}
    path = tmp_path / "deep" / "task.npz"
    save_outcome(path, outcome, "accuracy")
    metric, read = load_outcome(path)
    assert metric == "accuracy" and read.keys() == {"test|en", "test|en-ext"}
    assert (resampled_scores(metric, read) == 0.5).all()
    save_outcome(path, None, "cosine_spearman")
    assert load_outcome(path) == ("cosine_spearman", {})
    assert [file.name for file in path.parent.iterdir()] == ["task.npz"]
