"""The spectrum, against LAPACK's SVD of the whole matrix."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from st_embfilter.errors import CheckpointError, NonFiniteError, OutputExistsError
from st_embfilter.spectral.gram import float32_gram
from st_embfilter.spectral.spectrum import Spectrum, eigh_descending


def matrix(height: int, width: int, seed: int = 0, decay: float = 0.0) -> Tensor:
    """Random, with singular values spread over ``decay`` orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -decay, width, dtype=torch.float64)
    return (torch.randn(height, width, generator=generator, dtype=torch.float64) * scale).float()


def blocks(w: Tensor, rows: int) -> list[Tensor]:
    return list(w.split(rows))


@given(
    st.integers(1, 40), st.integers(0, 60), st.integers(1, 50), st.integers(0, 9), st.floats(0, 4)
)
@settings(max_examples=60)
def test_as_accurate_as_float32_svd(
    width: int, more: int, rows: int, seed: int, decay: float
) -> None:
    w = matrix(width + more, width, seed, decay)
    exact = np.linalg.svd(w.double().numpy(), full_matrices=False)
    float32 = np.linalg.svd(w.numpy(), full_matrices=False)
    ours = Spectrum.from_row_blocks(blocks(w, rows))
    values, vectors = ours.singular_values.numpy(), ours.right_singular_vectors.numpy()
    # Where float32 finds a value or direction to its own accuracy, so do we.
    noise = np.finfo(np.float32).eps * exact[1][0]
    assert np.all(np.abs(values - exact[1]) <= np.abs(float32[1] - exact[1]) + noise)
    gaps = np.abs(np.subtract.outer(exact[1], exact[1])) + np.eye(width) * 1e9
    separated = gaps.min(axis=1) > 100 * noise
    ours_error = 1 - np.abs((vectors * exact[2]).sum(axis=1))
    float32_error = 1 - np.abs((float32[2] * exact[2]).sum(axis=1))
    assert np.all(ours_error[separated] <= np.abs(float32_error[separated]) + 1e-7)


def wide(decay: float, mean: float = 0.0, height: int = 3000, width: int = 260) -> Tensor:
    """Wide enough for float32 products, with directions that lie askew, and a mean row."""
    generator = torch.Generator().manual_seed(7)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    w = matrix(height, width, decay=decay) @ rotation
    return w + mean * torch.randn(width, generator=generator)


def halves_error(exact: Tensor, found: Tensor) -> float:
    """The sine of the largest angle between the spaces of the larger half of the directions."""
    a, b = exact[: len(exact) // 2].double(), found[: len(exact) // 2].double()
    return float(torch.linalg.matrix_norm(b - (b @ a.T) @ a, ord=2))


@pytest.mark.parametrize(("decay", "mean"), [(0.0, 0.0), (1.0, 0.0), (1.0, 30.0)])
def test_float32_products_beat_a_float32_svd(decay: float, mean: float) -> None:
    w = wide(decay, mean)
    gram = float32_gram(blocks(w, 500))
    assert gram is not None and gram.resolves(*eigh_descending(gram.total))
    exact = torch.linalg.svd(w.double(), full_matrices=False)
    float32 = torch.linalg.svd(w, full_matrices=False)
    ours = Spectrum.from_row_blocks(blocks(w, 500))
    values = (ours.singular_values - exact.S).abs().max()
    assert values < (float32.S - exact.S).abs().max() / 2
    error = halves_error(exact.Vh, ours.right_singular_vectors)
    assert error < halves_error(exact.Vh, float32.Vh) / 2


@pytest.mark.parametrize("decay", [3.0, 6.0])
def test_what_float32_products_cannot_resolve_is_done_in_float64(decay: float) -> None:
    w = wide(decay)
    gram = float32_gram(blocks(w, 500))
    assert gram is not None and not gram.resolves(*eigh_descending(gram.total))
    ours = Spectrum.from_row_blocks(blocks(w, 500))
    once = Spectrum.from_row_blocks(iter(blocks(w, 500)))
    assert torch.equal(ours.right_singular_vectors, once.right_singular_vectors)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_extreme_scales(scale: float) -> None:
    w = wide(0.5)
    scaled = Spectrum.from_row_blocks(blocks(w * scale, 500)).singular_values
    torch.testing.assert_close(
        scaled / scale, Spectrum.from_row_blocks([w]).singular_values, rtol=1e-5, atol=0
    )


def test_non_finite_names_the_row_in_a_wide_matrix() -> None:
    w = wide(0.0)
    w[1234, 5] = float("nan")
    with pytest.raises(NonFiniteError, match="row 1234"):
        Spectrum.from_row_blocks(blocks(w, 500))


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 9))
@settings(max_examples=40)
def test_rows_are_orthonormal_and_values_descend(width: int, height: int, seed: int) -> None:
    spectrum = Spectrum.from_row_blocks([matrix(height, width, seed)])
    vectors = spectrum.right_singular_vectors
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(width).double(), atol=1e-12, rtol=0)
    values = spectrum.singular_values
    assert values.shape == (width,) and bool((values.diff() <= 0).all()) and float(values[-1]) >= 0


def test_block_size_changes_nothing_beyond_rounding() -> None:
    w = matrix(500, 30, decay=2)
    whole = Spectrum.from_row_blocks([w])
    for rows in (1, 7, 499):
        part = Spectrum.from_row_blocks(blocks(w, rows))
        torch.testing.assert_close(part.singular_values, whole.singular_values, rtol=1e-10, atol=0)
        torch.testing.assert_close(
            part.right_singular_vectors, whole.right_singular_vectors, rtol=0, atol=1e-8
        )


def test_same_input_same_bits() -> None:
    w = matrix(400, 50)
    one, two = (Spectrum.from_row_blocks(blocks(w, 64)) for _ in range(2))
    assert torch.equal(one.right_singular_vectors, two.right_singular_vectors)


def test_signs_follow_the_rule() -> None:
    vectors = Spectrum.from_row_blocks([matrix(300, 40)]).right_singular_vectors
    assert bool((vectors.gather(1, vectors.abs().argmax(1, keepdim=True)) > 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_low_precision_is_read_exactly(dtype: torch.dtype) -> None:
    w = matrix(200, 20).to(dtype)
    stored = Spectrum.from_row_blocks(blocks(w, 33))
    widened = Spectrum.from_row_blocks(blocks(w.float(), 33))
    assert torch.equal(stored.singular_values, widened.singular_values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_names_the_row(bad: float) -> None:
    w = matrix(100, 10)
    w[57, 3] = bad
    with pytest.raises(NonFiniteError, match="row 57"):
        Spectrum.from_row_blocks(blocks(w, 20))


def test_no_rows() -> None:
    with pytest.raises(CheckpointError):
        Spectrum.from_row_blocks([])


def test_save_and_load(tmp_path: Path) -> None:
    spectrum = Spectrum.from_row_blocks([matrix(60, 12)], {"source": "org/llm", "shape": [60, 12]})
    path = tmp_path / "deep" / "spectrum.safetensors"
    spectrum.save(path)
    loaded = Spectrum.load(path)
    assert torch.equal(loaded.singular_values, spectrum.singular_values)
    assert torch.equal(loaded.right_singular_vectors, spectrum.right_singular_vectors)
    assert loaded.provenance == spectrum.provenance
    with pytest.raises(OutputExistsError):
        spectrum.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"garbage that is no safetensors file"])
def test_load_what_is_no_spectrum(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a saved spectrum"):
        Spectrum.load(path)
    with pytest.raises(CheckpointError):
        Spectrum.load(tmp_path / "missing.safetensors")
