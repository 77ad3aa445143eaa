"""Which directions a band keeps, and in what order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.errors import BandError
from st_embfilter.spectral.bands import band_indices, edge_band, kept_dimensions

widths = st.integers(1, 300)


@given(widths, st.data())
def test_edge_keeps_the_references_middle(width: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, width))
    start = (width - k) // 2
    assert sorted(edge_band(width, k)) == list(range(start, start + k))


@given(widths, st.data())
def test_edge_is_nested(width: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, width))
    assert edge_band(width, width)[:k] == edge_band(width, k)


def test_edge_order_by_hand() -> None:
    assert edge_band(6, 6) == [2, 3, 1, 4, 0, 5]
    assert edge_band(5, 5) == [2, 1, 3, 0, 4]


@given(widths, st.data())
def test_named_bands_keep_what_their_name_does_not_remove(width: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, width))
    everything = list(range(width))
    assert band_indices(width, k, "tail") == everything[:k]
    assert band_indices(width, k, "head") == everything[width - k :]
    if k >= 2:
        half = k // 2
        assert band_indices(width, k, "mid") == everything[:half] + everything[width - half :]


@given(widths, st.integers(0, 5), st.data())
def test_random_is_seeded_and_in_order(width: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, width))
    chosen = band_indices(width, k, "random", seed)
    assert chosen == band_indices(width, k, "random", seed)
    assert chosen == sorted(set(chosen)) and len(chosen) == k
    assert chosen[0] >= 0 and chosen[-1] < width


def test_seeds_differ() -> None:
    assert band_indices(200, 100, "random", 0) != band_indices(200, 100, "random", 1)


def test_explicit_indices_keep_their_order() -> None:
    assert band_indices(10, 3, [7, 0, 3]) == [7, 0, 3]


@pytest.mark.parametrize("indices", [[], [1, 1], [-1], [10]])
def test_bad_indices(indices: list[int]) -> None:
    with pytest.raises(BandError):
        band_indices(10, 1, indices)


def test_unknown_band() -> None:
    with pytest.raises(BandError, match="edge, head, tail, mid, random"):
        band_indices(10, 5, "middle")  # type: ignore[arg-type]


@given(widths, st.data())
def test_ratio_is_floor_division(width: int, data: st.DataObject) -> None:
    ratio = data.draw(st.integers(1, width))
    assert kept_dimensions(width, ratio) == width // ratio


@pytest.mark.parametrize("ratio", [0, -2, 0.5, 577, float("nan"), float("inf")])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(BandError, match="from 1"):
        kept_dimensions(576, ratio)


@pytest.mark.parametrize("k", [0, -1, 577])
def test_dimensions_out_of_range(k: int) -> None:
    with pytest.raises(BandError, match="from 1 to 576"):
        kept_dimensions(576, k=k)


def test_ratio_and_dimensions_exclude_each_other() -> None:
    with pytest.raises(BandError):
        kept_dimensions(576, 2, 288)
    with pytest.raises(BandError):
        kept_dimensions(576)
