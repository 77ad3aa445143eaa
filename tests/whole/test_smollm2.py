"""The whole on a real language model, SmolLM2-135M-Instruct.

In one file, as one worker of pytest-xdist takes it: reading the model takes its time.
"""

import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sentence_transformers import SentenceTransformer

from st_embfilter import (
    FilterModule,
    Unembedding,
    build_model,
    save_pretrained,
    verify,
)
from st_embfilter.checkpoint.backbone import load_transformer
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.demo import demo
from st_embfilter.errors import OutputExistsError
from st_embfilter.inspection import run as inspection_run
from st_embfilter.inspection.subject import Subject
from st_embfilter.pipeline import unfiltered
from st_embfilter.pipeline.automatic import SHIPPED_TEXTS
from st_embfilter.spectral.spectrum import Spectrum
from support.command_line import Run
from support.comparing import relative
from support.other_interpreter import TEXTS as EMBEDDED
from support.other_interpreter import embed
from support.paths import GOLDEN, SHARED

pytestmark = pytest.mark.slow

TEXTS = [
    "A man is playing the guitar on stage",
    "a",
    "The committee approved the budget, although two members voted against it.",
    "word " * 120,
    "Zwei Hunde laufen im Schnee; ひとりの男が走る。",
]


def cosines(embeddings: np.ndarray) -> np.ndarray:
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.fixture(scope="session")
def smollm2_model(smollm2: Path) -> SentenceTransformer:
    """The real pipeline, in float32."""
    return build_model(smollm2, band="edge", device="cpu")


@pytest.fixture(scope="session")
def smollm2_artifact(
    smollm2_model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The real artifact."""
    return save_pretrained(smollm2_model, tmp_path_factory.mktemp("artifacts") / "smollm2")


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """What the authors' own code gives, see the README beside it."""
    return dict(np.load(GOLDEN / "smollm2_reference.npz"))


@pytest.fixture(scope="session")
def reference_texts() -> dict[int, str]:
    """What it was given, by row.

    All 32 where the shared data is. Else those that may be given on with this package.
    """
    everything = SHARED / "golden" / "texts.json"
    if everything.is_file():
        return dict(enumerate(json.loads(everything.read_text(encoding="utf-8"))))
    given_on = json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))
    return {int(row): text for row, text in given_on.items()}


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


@pytest.fixture(scope="module")
def read_once() -> Iterator[None]:
    """The exact form of every prompt has the same language model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfiltered, "load_transformer", cache(load_transformer))
        yield


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("prompt", ["prompteol", "echo"])
def test_exact_form_is_the_reference(
    reference: dict[str, np.ndarray],
    reference_texts: dict[int, str],
    smollm2: Path,
    spectrum: Spectrum,
    prompt: str,
) -> None:
    """All texts that there are; where the shared data is, the one beyond the limit too."""
    rows, texts = list(reference_texts), list(reference_texts.values())
    model = build_model(
        smollm2,
        band="edge",
        ratio=1,
        prompt=prompt,
        format="exact",
        spectrum=spectrum,
        device="cpu",
    )
    # More in a batch would all be padded to the longest.
    embeddings = model.encode(texts, batch_size=2)
    for ratio in (1, 2, 4, 8):
        found = cosines(embeddings[:, : embeddings.shape[1] // ratio])
        assert np.abs(found - cosines(reference[f"{prompt}_tau{ratio}"][rows])).max() <= 1e-4


def test_artifact_without_the_package(
    smollm2_model: SentenceTransformer, smollm2_artifact: Path, plain_python: Path
) -> None:
    found, said = embed(plain_python, smollm2_artifact)
    assert relative(found, smollm2_model.encode(EMBEDDED, batch_size=1)) <= 1e-5
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


def test_demo_shows_and_leaves_what_it_says(
    smollm2: Path,
    smollm2_model: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The fixture is what it would build: reading a GGUF file takes its time.
    monkeypatch.setattr(demo, "build_model", lambda *_, **__: smollm2_model)
    said = io.StringIO()
    demo.run_demo(tmp_path / "out", Console(file=said, width=200))
    text = said.getvalue()
    for part in ("an embedding lies closest to", "mean reciprocal rank", "worse", "better", "288"):
        assert part in text
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "smollm2-embedding" / "modules.json").is_file()
    with pytest.raises(OutputExistsError):
        demo.run_demo(tmp_path / "out", Console(file=said))


def test_inspect_finds_the_steps_of_the_paper(
    run: Run,
    smollm2: Path,
    smollm2_model: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = SentenceTransformer(modules=list(smollm2_model)[:2], device="cpu")
    # Reading a GGUF file takes its time.
    monkeypatch.setattr(Subject, "load_embedder", lambda *_: raw)
    monkeypatch.setattr(inspection_run, "load_tokenizer", lambda _: raw.tokenizer)
    monkeypatch.setattr("st_embfilter.commands.inspect.MOST_TEXTS", 12)
    result = run("inspect", smollm2, "--out", tmp_path / "out", "--texts", SHIPPED_TEXTS)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    near, average, _, lowered, _, alike, _, conclusion = content["reading"]
    for finding in (near, average, lowered, alike, conclusion):
        assert finding["verdict"] == "holds", finding
    # The smallest singular value's direction writes what the tokenizer has seen most.
    words = {token["text"] for token in content["directions"][-1]["along"]}
    assert words & {" the", " a", " his"}
