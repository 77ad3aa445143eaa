"""The average token and logit shifts, against direct solutions with the whole matrix."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from st_embfilter.spectral.spectroscopy import (
    average_token,
    band_shift,
    energy,
    gather_rows,
    logit_shift,
)
from st_embfilter.spectral.spectrum import Spectrum
from support.paths import ROOT

BENCHMARK = ROOT / "benchmarks" / "memory" / "spectroscopy.py"


def example(height: int, width: int, seed: int, decay: float = 1.0) -> tuple[Tensor, Tensor]:
    """W_U with singular values over ``decay`` orders of magnitude, and log p̂."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -decay, width, dtype=torch.float64)
    w = torch.randn(height, width, generator=generator, dtype=torch.float64) * scale
    return w, torch.randn(height, generator=generator, dtype=torch.float64).log_softmax(dim=0)


@given(
    st.integers(1, 12), st.integers(0, 60), st.integers(1, 80), st.integers(0, 9), st.floats(0, 3)
)
def test_average_token_is_least_squares(
    width: int, more: int, rows: int, seed: int, decay: float
) -> None:
    w, log_p = example(width + more, width, seed, decay)
    found = average_token(Spectrum.from_row_blocks([w]), w.split(rows), log_p)
    expected = torch.linalg.lstsq(w, log_p[:, None]).solution[:, 0]
    # Squared, as the normal equations have it, a condition number of 1e4 leaves half the digits.
    torch.testing.assert_close(w @ found, w @ expected, atol=1e-6, rtol=1e-6)


def test_average_token_of_a_matrix_without_full_rank() -> None:
    w, log_p = example(50, 8, 0)
    w[:, 5:] = w[:, :3] @ torch.randn(3, 3, dtype=torch.float64)
    found = average_token(Spectrum.from_row_blocks([w]), w.split(7), log_p)
    # The shortest of the many solutions.
    expected = torch.linalg.lstsq(w, log_p[:, None], rcond=1e-9, driver="gelsd").solution[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@given(st.integers(1, 60))
def test_rows_come_as_asked_for(rows: int) -> None:
    w, _ = example(50, 4, 0)
    tokens = torch.tensor([49, 0, 7, 7])
    assert torch.equal(gather_rows(w.half().split(rows), tokens), w.half()[tokens].float())


def test_energy_is_spread_over_the_directions() -> None:
    w, _ = example(50, 6, 0)
    spectrum = Spectrum.from_row_blocks([w])
    v = spectrum.right_singular_vectors
    torch.testing.assert_close(
        energy(torch.stack([3 * v[1], -v[4]]), spectrum),
        torch.tensor([0, 0.9, 0, 0, 0.1, 0]).double(),
    )
    assert float(energy(w, spectrum).sum()) == pytest.approx(1)
    # W_U's own rows have the squared singular values.
    values = spectrum.singular_values.square()
    torch.testing.assert_close(energy(w, spectrum), values / values.sum())


@given(st.integers(0, 9), st.integers(0, 5))
def test_shift_is_what_removing_a_direction_does(seed: int, index: int) -> None:
    w, _ = example(40, 6, seed)
    spectrum = Spectrum.from_row_blocks([w])
    embeddings = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)).double()
    tokens = torch.tensor([3, 8, 21])
    v = spectrum.right_singular_vectors[index]
    before = embeddings @ w.T
    after = (embeddings - (embeddings @ v)[:, None] * v) @ w.T
    difference = (after - before)[:, tokens]
    delta = (difference.abs().sum(dim=1) / before[:, tokens].abs().sum(dim=1)).mean()
    found = logit_shift(embeddings, w[tokens], spectrum)[index]
    torch.testing.assert_close(found, delta)
    band = band_shift(embeddings, w[tokens], v[None])
    assert band.relative == pytest.approx(float(delta))
    assert band.mean == pytest.approx(float(difference.mean()))


def test_removing_all_directions_leaves_no_logit() -> None:
    w, _ = example(40, 6, 0)
    spectrum = Spectrum.from_row_blocks([w])
    embeddings = torch.randn(5, 6).double()
    shift = band_shift(embeddings, w[:9], spectrum.right_singular_vectors)
    assert shift.relative == pytest.approx(1)
    assert shift.mean == pytest.approx(-float((embeddings @ w[:9].T).mean()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
def test_memory_is_bounded() -> None:
    result = subprocess.run(
        [sys.executable, BENCHMARK, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    cost = json.loads(result.stdout)
    assert cost["peak memory on top of that"] < 0.5 * cost["W_U in float32"]
