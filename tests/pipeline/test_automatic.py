"""The band auto: its mathematics, the texts it is calibrated on, and the artifact it gives."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sklearn.covariance import oas as shrunk_covariance

from st_embfilter import FilterModule, Spectrum, Unembedding, build_model, save_pretrained, verify
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.errors import (
    BandError,
    MisuseError,
    VerificationError,
    WidthError,
)
from st_embfilter.pipeline.automatic import calibration_texts
from st_embfilter.spectral.calibration import (
    Principal,
    automatic_filter,
    chance_share,
    principal_directions,
    varying_share,
)
from support.command_line import Run, fails
from support.comparing import relative
from support.models import WIDTH

SEEDS = st.integers(0, 2**32 - 1)
TEXTS = [f"Text {number} is about {number % 7} dogs." for number in range(250)]


def rotation(width: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0].T


def sample_with_a_loud_edge(directions: np.ndarray, seed: int, count: int = 400) -> np.ndarray:
    """Embeddings whose mean lies in the first and last eighth of the spectrum."""
    width = len(directions)
    generator = np.random.default_rng(seed)
    mean = np.where(
        (np.arange(width) < width // 8) | (np.arange(width) >= width - width // 8), 9, 0
    )
    return (generator.normal(size=(count, width)) + mean) @ directions


@given(seed=SEEDS)
def test_weights_fall_where_the_mean_lies(seed: int) -> None:
    directions = rotation(144, seed)
    share = varying_share(
        directions, principal_directions(sample_with_a_loud_edge(directions, seed))
    )
    assert (share[:12] < 0.05).all() and (share[-12:] < 0.05).all()
    assert (share[40:104] > 0.9).all()


def test_the_share_of_each_direction_by_the_definition() -> None:
    """Of 72 directions the neighbours are one to either side, and at the ends count twice."""
    directions, generator = rotation(72, 0), np.random.default_rng(1)
    sample = generator.normal(size=(500, 72)) * generator.uniform(0.5, 2, 72) + 1
    coordinates = sample @ directions.T
    means, variances = coordinates.mean(axis=0) ** 2, coordinates.var(axis=0)

    def around(values: np.ndarray, index: int) -> float:
        return float(np.mean([values[min(max(i, 0), 71)] for i in range(index - 1, index + 2)]))

    expected = [around(variances, i) / (around(variances, i) + around(means, i)) for i in range(72)]
    found = varying_share(directions, principal_directions(sample))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(seed=SEEDS, scale=st.floats(1e-3, 1e3))
def test_only_the_embeddings_directions_count(seed: int, scale: float) -> None:
    """Longer embeddings give the same filter, and signs of singular vectors are free."""
    directions = rotation(24, seed)
    sample = sample_with_a_loud_edge(directions, seed)
    matrix, weights = automatic_filter(directions, principal_directions(sample))
    signs = np.random.default_rng(seed).choice([-1, 1], size=(24, 1))
    again, same = automatic_filter(signs * directions, principal_directions(scale * sample))
    np.testing.assert_allclose(same, weights, rtol=1e-6)
    np.testing.assert_allclose(again.T @ again, matrix.T @ matrix, rtol=1e-5, atol=1e-8)


@given(seed=SEEDS)
def test_keeps_the_variance_in_total_and_its_order(seed: int) -> None:
    directions = rotation(24, seed)
    sample = sample_with_a_loud_edge(directions, seed)
    matrix, _ = automatic_filter(directions, principal_directions(sample))
    filtered = sample @ matrix.T
    assert filtered.var(axis=0).sum() == pytest.approx(sample.var(axis=0).sum())
    energies = (filtered**2).mean(axis=0)
    assert (np.diff(energies) <= 1e-9 * energies[0]).all()


@given(seed=SEEDS, size=st.integers(2, 60))
def test_the_covariance_is_shrunk_as_scikit_learn_has_it(seed: int, size: int) -> None:
    sample = np.random.default_rng(seed).normal(size=(size, 12)) * np.geomspace(1, 0.1, 12)
    principal = principal_directions(sample)
    covariance = (principal.directions.T * principal.variances) @ principal.directions
    expected = shrunk_covariance(sample)[1]
    # Theirs leaves out two terms that vanish with the width.
    assert chance_share(covariance, size) == pytest.approx(expected, rel=0.25)
    assert 0 <= chance_share(covariance, size) <= 1


def test_each_step_by_the_definition() -> None:
    """With W_U's directions as the axes, and a sample that is uncorrelated along them."""
    generator = np.random.default_rng(3)
    rows = np.linalg.qr(generator.normal(size=(4000, 73)))[0]
    rows = (rows - rows.mean(axis=0)) * np.sqrt(4000) * np.geomspace(3, 0.1, 73)
    sample = rows[:, :72] + np.eye(72)[10] * 2
    principal = principal_directions(sample)
    matrix, weights = automatic_filter(np.eye(72), principal)
    covariance = np.diag(weights) @ np.cov(sample.T, bias=True) @ np.diag(weights)
    mean = weights * sample.mean(axis=0)
    typical, chance = np.trace(covariance) / 72, chance_share(covariance, 4000)
    energies, columns = np.linalg.eigh(covariance + np.outer(mean, mean))
    energies = (1 - chance) * energies + chance * typical
    gains = np.sqrt(energies) / (energies + typical / 4)
    expected = (columns * gains) @ columns.T  # Whatever the order and signs of the rows.
    root = columns @ columns.T
    found = matrix / weights
    np.testing.assert_allclose(
        found.T @ found / np.trace(found.T @ found),
        expected @ root @ expected / np.trace(expected @ expected),
        atol=1e-6,
    )


def test_fewer_texts_than_dimensions_give_no_wild_rows() -> None:
    directions = rotation(144, 0)
    sample = sample_with_a_loud_edge(directions, 0, count=60)
    matrix, _ = automatic_filter(directions, principal_directions(sample))
    assert np.isfinite(matrix).all()
    lengths = np.linalg.norm(matrix, axis=1)
    assert lengths.max() / np.median(lengths) < 10


def test_texts_that_are_all_alike_are_refused() -> None:
    with pytest.raises(MisuseError, match="the same embedding"):
        automatic_filter(np.eye(4), principal_directions(np.ones((10, 4))))


def test_a_sample_of_another_model_is_refused() -> None:
    spectrum = Spectrum.from_row_blocks([torch.randn(50, 8)])
    with pytest.raises(WidthError, match="9 wide"):
        FilterModule.from_sample(spectrum, np.ones((10, 9), np.float32))
    with pytest.raises(BandError, match="from 1 to 8"):
        FilterModule.from_sample(spectrum, np.ones((10, 8), np.float32), k=9)


def test_the_shipped_texts_are_many_and_of_many_kinds() -> None:
    texts = calibration_texts(None)
    assert texts.shipped and len(texts.texts) == 1150
    assert not any(text != text.strip() or "\t" in text for text in texts.texts)
    beginnings = Counter(text.split()[0] for text in texts.texts)
    assert beginnings.most_common(1)[0][1] < 0.02 * len(texts.texts)
    not_ascii = sum(not text.isascii() for text in texts.texts)
    assert 0.1 < not_ascii / len(texts.texts) < 0.4


def test_without_texts_a_model_is_calibrated_on_the_shipped_ones(
    tiny: Path, tmp_path: Path
) -> None:
    model = build_model(tiny, device="cpu")
    folder = save_pretrained(model, tmp_path / "model")
    manifest = json.loads((folder / "embfilter.json").read_text())
    assert manifest["band"] == "auto" and manifest["calibration"]["shipped"]
    card = (folder / "README.md").read_text()
    assert "--band auto" in card and "--calibration" not in card
    assert "Nothing in it was fitted" in card and "1,150 texts" in card
    again = build_model(tiny, band="auto", calibration=calibration_texts(None).texts, device="cpu")
    torch.testing.assert_close(again[2].linear.weight, model[2].linear.weight, rtol=0, atol=0)


@pytest.fixture(scope="module")
def calibrated(tiny: Path) -> SentenceTransformer:
    return build_model(
        tiny,
        band="auto",
        calibration=TEXTS,
        query_prompt='Query: "{text}" in one word:"',
        prompt='Text: "{text}" in one word:"',
        device="cpu",
    )


def test_the_filter_is_that_of_the_pipelines_own_embeddings(
    tiny: Path, calibrated: SentenceTransformer
) -> None:
    raw = SentenceTransformer(modules=list(calibrated)[:2], device="cpu")
    fronts = {'Text: "', 'Query: "'}
    assert {front for front in calibrated.prompts.values() if front} == fronts
    samples = [raw.encode(TEXTS, prompt=front).astype(np.float64) for front in sorted(fronts)]
    # What differs between the prompts is not among what tells texts apart.
    within = np.mean([np.cov(sample.T, bias=True) for sample in samples], axis=0)
    variances, columns = np.linalg.eigh(within)
    mean = np.mean([sample.mean(axis=0) for sample in samples], axis=0)
    principal = Principal(mean, variances[::-1], columns.T[::-1], 2 * len(TEXTS))
    spectrum = FilterModule.from_pretrained(tiny).provenance["singular_values"]
    module = calibrated[2]
    assert module.provenance["singular_values"] == pytest.approx(spectrum)
    edge = FilterModule.from_pretrained(tiny, ratio=1)
    directions = edge.linear.weight.numpy()[np.argsort(edge.provenance["indices"])]
    matrix, weights = automatic_filter(directions, principal)
    np.testing.assert_allclose(module.provenance["weights"], weights, rtol=1e-3)
    found = module.linear.weight.numpy()
    assert found.shape == (WIDTH // 2, WIDTH)
    np.testing.assert_allclose(found.T @ found, (m := matrix[: WIDTH // 2]).T @ m, atol=1e-3)


def test_round_trip(calibrated: SentenceTransformer, tmp_path: Path) -> None:
    folder = save_pretrained(calibrated, tmp_path / "auto")
    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    texts = ["a dog", "another cat, perhaps"]
    assert relative(loaded.encode(texts), calibrated.encode(texts)) < 1e-5
    assert "weighted" in " ".join(check.detail for check in verify(folder))
    manifest = json.loads((folder / "embfilter.json").read_text())
    assert manifest["calibration"]["texts"] == 250 and not manifest["calibration"]["shipped"]
    config = json.loads((folder / "config.json").read_text())
    assert config["is_matryoshka"] is True
    card = (folder / "README.md").read_text()
    assert "--band auto" in card and "--calibration FILE" in card and "250 texts" in card
    assert "truncate_dim=" in card and "Nothing in it was fitted" not in card
    short = SentenceTransformer(str(folder), device="cpu", truncate_dim=5)
    assert relative(short.encode(texts), calibrated.encode(texts)[:, :5]) < 1e-5


def test_a_filter_made_by_hand_is_saved_too(
    tiny: Path, calibrated: SentenceTransformer, tmp_path: Path
) -> None:
    raw = SentenceTransformer(modules=list(calibrated)[:2], device="cpu")
    spectrum = compute_spectrum(Unembedding.from_pretrained(tiny))
    raw.append(FilterModule.from_sample(spectrum, raw.encode(TEXTS)))
    folder = save_pretrained(raw, tmp_path / "auto")
    assert verify(folder)
    assert "--calibration FILE" in (folder / "README.md").read_text()


def test_verify_names_what_is_broken(calibrated: SentenceTransformer, tmp_path: Path) -> None:
    folder = save_pretrained(calibrated, tmp_path / "auto")
    manifest = json.loads((folder / "embfilter.json").read_text())
    manifest["weights"][0] = 1.5
    (folder / "embfilter.json").write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="from 0 to 1"):
        verify(folder)
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    weights["linear.weight"][3] = 0
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(VerificationError, match="all zeros"):
        verify(folder)


def test_the_exact_form_is_calibrated_too(tiny: Path) -> None:
    model = build_model(tiny, band="auto", calibration=TEXTS, format="exact", k=7, device="cpu")
    assert model.encode("a dog").shape == (7,)


def test_bad_input(run: Run, tiny: Path, tmp_path: Path) -> None:
    few, empty, latin = tmp_path / "few.txt", tmp_path / "empty.txt", tmp_path / "latin.txt"
    few.write_text("one\ntwo\n\none\n")
    empty.write_text("\n \n")
    latin.write_bytes("à la carte\n".encode("latin-1"))
    out = tmp_path / "out"
    build = ("build", tiny, "--out", out, "--band", "auto", "--calibration")
    fails(run(*build, few), 2, "200 different texts", "there are 2")
    fails(run(*build, empty), 2, "holds no text")
    fails(run(*build, latin), 2, "not UTF-8")
    fails(run(*build, tmp_path / "none.txt"), 2, "can't be read")
    fails(
        run("build", "--band", "edge", tiny, "--out", out, "--calibration", few),
        2,
        "only the band auto",
    )
    fails(run(*build, few, "--dims", "4000"), 2, "from 1 to 48")
    assert not out.exists()


def test_a_filter_alone_has_nothing_to_calibrate_on(tiny: Path) -> None:
    with pytest.raises(BandError, match="build_model"):
        FilterModule.from_pretrained(tiny, band="auto")  # type: ignore[arg-type]


def test_an_evaluation_does_not_take_all_dimensions_for_the_raw_embedding(
    tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mteb", reason="evaluation needs mteb")
    from st_embfilter.evaluation.evaluated import load_evaluated
    from st_embfilter.evaluation.methods import FILTER, RAW, filter_method, raw_method

    model = build_model(tiny, band="auto", calibration=TEXTS, ratio=1, device="cpu")
    evaluated = load_evaluated(str(save_pretrained(model, tmp_path / "auto")), device="cpu")
    rows = evaluated.unfiltered().encode(TEXTS[:5])
    raw, filtered = raw_method(evaluated, WIDTH), filter_method(evaluated, WIDTH // 4)
    assert (raw.name, filtered.name) == (RAW, FILTER) and raw.transform and filtered.transform
    np.testing.assert_array_equal(raw.transform(rows), rows)
    assert relative(filtered.transform(rows), model.encode(TEXTS[:5])[:, : WIDTH // 4]) < 1e-5
