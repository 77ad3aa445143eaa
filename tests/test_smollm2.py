"""The whole on a real language model, SmolLM2-135M-Instruct."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, relative
from sentence_transformers import SentenceTransformer
from test_artifact import embed

from st_embfilter import FilterModule, Unembedding, build_model, save_pretrained, verify
from st_embfilter.filter_module import compute_spectrum
from st_embfilter.spectrum import Spectrum

TEXTS = [
    "A man is playing the guitar on stage",
    "a",
    "The committee approved the budget, although two members voted against it.",
    "word " * 700,
    "Zwei Hunde laufen im Schnee; ひとりの男が走る。",
]


def cosines(embeddings: np.ndarray) -> np.ndarray:
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.fixture(scope="module")
def spectrum(smollm2: Path) -> Spectrum:
    return compute_spectrum(Unembedding.from_pretrained(smollm2))


@pytest.mark.parametrize("prompt", ["prompteol", "echo"])
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_filter_parity_with_the_reference(
    reference: dict[str, np.ndarray], spectrum: Spectrum, prompt: str, ratio: int
) -> None:
    matrix = FilterModule.from_spectrum(spectrum, ratio=ratio).linear.weight.numpy()
    found = cosines(reference[f"{prompt}_tau1"] @ matrix.T)
    assert np.abs(found - cosines(reference[f"{prompt}_tau{ratio}"])).max() <= 1e-4


@pytest.mark.parametrize("prompt", ["prompteol", "echo"])
def test_exact_form_is_the_reference(
    reference: dict[str, np.ndarray], smollm2: Path, spectrum: Spectrum, prompt: str
) -> None:
    """All texts, the one beyond the limit too."""
    texts = json.loads((SHARED / "golden" / "texts.json").read_text())
    model = build_model(
        smollm2, ratio=1, prompt=prompt, format="exact", spectrum=spectrum, device="cpu"
    )
    embeddings = model.encode(texts, batch_size=8)
    for ratio in (1, 2, 4, 8):
        found = cosines(embeddings[:, : embeddings.shape[1] // ratio])
        assert np.abs(found - cosines(reference[f"{prompt}_tau{ratio}"])).max() <= 1e-4


def test_artifact_without_the_package(
    smollm2_model: SentenceTransformer, smollm2_artifact: Path, plain_python: Path
) -> None:
    from test_artifact import TEXTS as texts

    found, said = embed(plain_python, smollm2_artifact)
    assert relative(found, smollm2_model.encode(texts)) <= 1e-5
    assert "trust_remote_code" not in said


def test_artifact_verifies(smollm2_artifact: Path) -> None:
    assert len(verify(smollm2_artifact)) == 5


def test_truncated_artifact_is_the_smaller_artifact(
    smollm2_model: SentenceTransformer,
    smollm2_artifact: Path,
    spectrum: Spectrum,
    tmp_path: Path,
) -> None:
    filter_module = FilterModule.from_spectrum(spectrum, ratio=8)
    model = SentenceTransformer(modules=[*list(smollm2_model)[:2], filter_module], device="cpu")
    small = SentenceTransformer(str(save_pretrained(model, tmp_path / "small")), device="cpu")
    cut = SentenceTransformer(str(smollm2_artifact), truncate_dim=72, device="cpu")
    assert relative(cut.encode(TEXTS), small.encode(TEXTS)) <= 1e-6
    # The other sizes differ in the matrix alone, and that is a prefix.
    for k in (288, 144):
        part = FilterModule.from_spectrum(spectrum, k=k).linear.weight
        np.testing.assert_array_equal(part, cut[2].linear.weight[:k].detach())


def test_company_and_padding_side_change_nothing(smollm2_model: SentenceTransformer) -> None:
    alone = np.stack([smollm2_model.encode(text) for text in TEXTS])
    for side in ("right", "left"):
        smollm2_model.tokenizer.padding_side = side
        together = smollm2_model.encode(TEXTS)
        pairs = smollm2_model.encode(TEXTS[::-1], batch_size=2)[::-1]
        smollm2_model.tokenizer.padding_side = "right"
        assert relative(together, alone) <= 1e-5
        assert relative(pairs, alone) <= 1e-5


def test_long_text_keeps_the_whole_prompt(smollm2_model: SentenceTransformer) -> None:
    ids = smollm2_model.tokenize(["word " * 700])["input_ids"]
    assert ids.shape == (1, 512)
    text = smollm2_model.tokenizer.decode(ids[0])
    assert text.startswith('Summarize the sentence: "word') and text.endswith('" in one word:"')
