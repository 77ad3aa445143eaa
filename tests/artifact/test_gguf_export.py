"""The filter as one more block: its mathematics, and files that transformers reads back.

What llama.cpp itself makes of them is in `make compat`.
"""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_embfilter import build_model, save_pretrained
from st_embfilter.artifact.filter_block import LARGEST, common_direction, filter_block
from st_embfilter.artifact.gguf_export import export_gguf
from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.errors import (
    BandError,
    CheckpointError,
    MisuseError,
    OutputExistsError,
    SourceNotFoundError,
)
from st_embfilter.files import read_json
from support.command_line import Run, fails
from support.gguf_models import read_gguf, save_both, write_gguf
from support.models import tiny_llama

SEEDS = st.integers(0, 2**32 - 1)
# Of them a tiny one is made here; Gemma 3's is the one with norms behind its parts.
FAMILIES = ("Llama 2", "Qwen2", "Qwen3", "Gemma 3")


def normed(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True))


def through(block, x: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """What llama.cpp computes, in float64."""
    n = normed(x)
    gate = n @ block.gate.T.astype(np.float64)
    half = gate * expit(gate) * (n @ block.up.T.astype(np.float64))
    assert np.abs(half).max() <= LARGEST * 1.01 < np.finfo(np.float16).max
    return normed(x + half @ block.down.T.astype(np.float64)) * block.final_norm


@given(seed=SEEDS, k=st.integers(1, 16), loudness=st.floats(0.01, 1000))
def test_a_block_gives_the_filters_direction(seed: int, k: int, loudness: float) -> None:
    generator = np.random.default_rng(seed)
    width = 32
    shared = generator.normal(size=width)
    states = loudness * (generator.normal(size=(40, width)) + 3 * shared)
    norm = generator.uniform(0.5, 2, size=width)
    matrix = generator.normal(size=(k, width))
    block = filter_block(matrix, norm, 64, common_direction(states))
    found = through(block, states)
    expected = (normed(states) * norm) @ matrix.T
    assert not found[:, k:].any()
    cosines = (found[:, :k] * expected).sum(axis=1)
    cosines /= np.linalg.norm(found[:, :k], axis=1) * np.linalg.norm(expected, axis=1)
    # Where the filter leaves hardly anything, what came in is not lost beside it.
    loud = np.linalg.norm(expected, axis=1) > 0.1 * np.linalg.norm(matrix, 2)
    assert (cosines[loud] > 1 - 1e-4 * max(1, loudness / 10) ** 2).all()


def test_states_with_nothing_in_common() -> None:
    states = np.eye(8)[[0] * 99 + [1]]
    with pytest.raises(MisuseError, match="too little in common"):
        common_direction(states)


def test_too_many_dimensions() -> None:
    with pytest.raises(MisuseError, match=r"keep 16 or fewer \(--dims\)"):
        filter_block(np.ones((17, 32)), np.ones(32), 33, np.ones(32))


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """An artifact, and the GGUF file of its language model."""
    if request.param == "Gemma 3" and TRANSFORMERS_MAJOR < 5:
        pytest.skip("transformers 4 can't load Gemma 3 without its head")
    work = tmp_path_factory.mktemp("gguf")
    file = save_both(request.param, work / "llm")
    built = build_model(work / "llm", band="edge", ratio=4, device="cpu", dtype=torch.float32)
    return save_pretrained(built, work / "artifact"), file


def check(path: Path, artifact: Path, k: int, off: float) -> None:
    """The last token's state behind the final norm has the artifact's direction."""
    model = SentenceTransformer(str(artifact), device="cpu", truncate_dim=k)
    backbone = read_gguf(path, model[0].auto_model.config)
    texts = ["cats", "A man is eating.", "What is the capital of France?", "def f(x): return x"]
    rows = []
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            rows.append(backbone(input_ids=ids).last_hidden_state[0, -1].numpy())
    found = np.stack(rows)
    assert not found[:, k:].any()
    expected = model.encode(texts, normalize_embeddings=True)
    cosines = (found[:, :k] * expected).sum(axis=1) / np.linalg.norm(found[:, :k], axis=1)
    assert cosines.min() > 1 - off, cosines


@pytest.mark.slow
def test_one_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    artifact, language_model = pair
    k = read_json(artifact / "embfilter.json")["k"]
    check(export_gguf(artifact, language_model, tmp_path / "one.gguf", None), artifact, k, 1e-4)
    fewer = export_gguf(artifact, language_model, tmp_path / "fewer.gguf", k // 2)
    check(fewer, artifact, k // 2, 1e-4)
    reader = gguf.GGUFReader(fewer)
    assert reader.get_field("embfilter.dimensions").contents() == k // 2
    assert "{text}" in reader.get_field("embfilter.prompt").contents()
    assert not [t.name for t in reader.tensors if t.name == "output.weight"]


@pytest.mark.slow
def test_of_smollm2(run: Run, smollm2: Path, tmp_path: Path) -> None:
    artifact, out = tmp_path / "artifact", tmp_path / "one.gguf"
    assert run("build", smollm2, "--out", artifact, "--band", "edge").returncode == 0
    made = run("export", artifact, "gguf", "--model", smollm2, "--out", out, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["bytes"] == out.stat().st_size < 1.2 * smollm2.stat().st_size
    assert "the first 288 are the embedding" in made.stderr
    check(out, artifact, 288, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "settings", "words"),
    [
        ("llama", {"llama.expert_count": 8}, "of the architecture llama, or a mixture of experts"),
        ("clip", {}, "of the architecture clip"),
        ("gemma3", {"gemma3.block_count": 62}, "Gemma 3 27B"),
        ("gemma3", {}, "says no gemma3.block_count: it is no language model's"),
    ],
)
def test_files_that_can_not_carry_a_filter(
    architecture: str, settings: dict[str, int], words: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", architecture)
    for name, number in settings.items():
        writer.add_uint32(name, number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(MisuseError, match=words):
        export_gguf(tiny_artifact, tmp_path / "other.gguf", tmp_path / "one.gguf", None)


@pytest.mark.slow
def test_what_can_not_be_exported(pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    artifact, language_model = pair
    out = tmp_path / "one.gguf"

    def refused(error: type[Exception], words: str, artifact: Path = artifact, **given: object):
        arguments = {"model": language_model, "out": out, "dims": None, **given}
        with pytest.raises(error, match=words):
            export_gguf(artifact, **arguments)
        assert not out.exists() and not list(tmp_path.glob("*.gguf"))

    refused(BandError, "from 1 to", dims=1000)
    refused(SourceNotFoundError, "no such file", model=tmp_path / "none.gguf")
    other = tiny_llama(tmp_path / "other")
    (tmp_path / "files").mkdir()
    stranger = AutoModelForCausalLM.from_pretrained(other)
    file = write_gguf(stranger, tmp_path / "files/a", AutoTokenizer.from_pretrained(other))
    refused(MisuseError, "another language model", model=file)
    exact = save_pretrained(
        build_model(other, band="edge", format="exact", device="cpu"), tmp_path / "exact"
    )
    refused(MisuseError, "thin, exact, or of Echo", exact)
    shutil.copy(language_model, tmp_path / "files/torn")
    with (tmp_path / "files/torn").open("r+b") as file:
        file.truncate(language_model.stat().st_size // 2)
    refused(CheckpointError, "corrupt or truncated", model=tmp_path / "files/torn")
    out.touch()
    with pytest.raises(OutputExistsError):
        export_gguf(artifact, language_model, out, None)
    fails(run("export", artifact, "gguf"), 2, "--model FILE", "--out FILE")
    fails(run("export", artifact, "onnx", "--dims", 8), 2, "are for gguf")
