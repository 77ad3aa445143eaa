"""The fitted baselines do what their papers say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.errors import BandError, MisuseError
from st_embfilter.spectral.calibration import (
    all_but_the_top,
    mean_removal,
    pca,
    principal_directions,
    whitening,
)

WIDTHS = st.integers(2, 12)
SEEDS = st.integers(0, 2**32 - 1)


def make_sample(width: int, seed: int, count: int = 60) -> np.ndarray:
    """Correlated, off centre, and of different scales."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(width, width)) + 2 * np.eye(width)
    return generator.normal(size=(count, width)) @ mixing + generator.normal(size=width)


@given(width=WIDTHS, seed=SEEDS, data=st.data())
def test_whitened_sample_has_the_identity_as_covariance(
    width: int, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, width))
    sample = make_sample(width, seed)
    white = whitening(principal_directions(sample), k).apply(sample)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(k), atol=1e-3)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)


def test_small_variances_are_no_reason_to_refuse() -> None:
    """As beside a language model's outlier dimensions, a thousand times as large as the others."""
    sample = make_sample(8, 0)
    sample[:, 3] *= 1e4
    white = whitening(principal_directions(sample.astype(np.float32)), 8).apply(sample)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(8), atol=1e-3)


@given(width=WIDTHS, seed=SEEDS, data=st.data())
def test_pca_keeps_the_directions_of_most_variance(
    width: int, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, width))
    sample = make_sample(width, seed)
    kept = pca(principal_directions(sample), k).apply(sample)
    singular = np.linalg.svd(sample - sample.mean(axis=0), compute_uv=False)[:k]
    np.testing.assert_allclose(np.linalg.norm(kept, axis=0), singular, rtol=1e-4)


@given(width=WIDTHS, seed=SEEDS, data=st.data())
def test_nothing_is_left_of_the_top_directions(width: int, seed: int, data: st.DataObject) -> None:
    removed = data.draw(st.integers(1, width - 1))
    sample = make_sample(width, seed)
    rest = all_but_the_top(principal_directions(sample), removed).apply(sample)
    singular = np.linalg.svd(sample - sample.mean(axis=0), compute_uv=False)
    expected = [*singular[removed:], *[0] * removed]
    found = np.linalg.svd(rest, compute_uv=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * singular[0])


def test_mean_removal_and_the_recommended_number_of_directions() -> None:
    sample = make_sample(200, 0, 300)
    principal = principal_directions(sample)
    np.testing.assert_allclose(mean_removal(principal).apply(sample).mean(axis=0), 0, atol=1e-4)
    rest = np.linalg.svd(all_but_the_top(principal).apply(sample), compute_uv=False)
    # One in a hundred of 200 dimensions.
    assert rest[-2] < 1e-3 < rest[-3]


def test_a_sample_too_small_is_refused() -> None:
    with pytest.raises(MisuseError, match="spans fewer than 8"):
        whitening(principal_directions(make_sample(12, 0, 3)), 8)
    with pytest.raises(BandError, match="from 1 to 12, not 13"):
        pca(principal_directions(make_sample(12, 0)), 13)
