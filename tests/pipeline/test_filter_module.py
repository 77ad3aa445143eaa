"""FilterModule as a layer: its arithmetic, and how it is saved, loaded and passed on."""

import copy
import json
import logging
import pickle
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM

from st_embfilter import FilterModule, Spectrum, Unembedding
from st_embfilter._compat import Dense, Pooling
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.errors import BandError, PipelineError, WidthError
from support.models import WIDTH, byte_level_tokenizer, tiny_llama
from support.other_interpreter import TEXTS, embed


@pytest.fixture(scope="module")
def spectrum(tiny: Path) -> Spectrum:
    return compute_spectrum(Unembedding.from_pretrained(tiny))


def test_is_the_reference_filter(tiny: Path) -> None:
    head = AutoModelForCausalLM.from_pretrained(tiny).lm_head.weight.detach()
    # In float64: close singular values mix in a float32 SVD, which is the reference's error.
    directions = torch.linalg.svd(head.double(), full_matrices=False)[2].float()
    for ratio in (2, 3, 4):
        k = WIDTH // ratio
        start = (WIDTH - k) // 2
        expected = torch.nn.functional.normalize(torch.randn(9, WIDTH), dim=1)
        found = FilterModule.from_pretrained(tiny, ratio=ratio)({"sentence_embedding": expected})
        reference = expected @ directions[start : start + k].T
        torch.testing.assert_close(
            torch.nn.functional.cosine_similarity(
                *[found["sentence_embedding"][i] for i in (slice(1), slice(1, None))]
            ),
            torch.nn.functional.cosine_similarity(reference[:1], reference[1:]),
            atol=1e-6,
            rtol=0,
        )


def test_default_is_half_of_the_dimensions(tiny: Path) -> None:
    assert FilterModule.from_pretrained(tiny).out_features == WIDTH // 2
    assert FilterModule.from_pretrained(tiny, k=7).out_features == 7
    assert FilterModule.from_pretrained(tiny, band=[4, 9, 2]).out_features == 3


def test_nested(spectrum: Spectrum) -> None:
    whole = FilterModule.from_spectrum(spectrum, ratio=1).linear.weight
    for k in (1, 5, 24, 47):
        part = FilterModule.from_spectrum(spectrum, k=k).linear.weight
        assert torch.equal(whole[:k], part)


def test_wrong_width_says_what_is_wrong(spectrum: Spectrum) -> None:
    module = FilterModule.from_spectrum(spectrum)
    with pytest.raises(WidthError, match=r"width 48, .* 64 wide"):
        module({"sentence_embedding": torch.randn(2, 64)})


def test_bad_ratio_is_seen_before_the_matrix_is_read(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("read W_U for nothing")

    monkeypatch.setattr(Unembedding, "row_blocks", fail)
    for ratio in (0, -1, WIDTH + 1):
        with pytest.raises(BandError):
            FilterModule.from_pretrained(tiny, ratio=ratio)


def test_half_precision_input_is_filtered_in_float32(spectrum: Spectrum) -> None:
    module = FilterModule.from_spectrum(spectrum)
    embedding = torch.randn(3, WIDTH).bfloat16()
    found = module({"sentence_embedding": embedding})["sentence_embedding"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, embedding.float() @ module.linear.weight.T)


def test_stays_float32_when_the_pipeline_is_cast(spectrum: Spectrum) -> None:
    module = FilterModule.from_spectrum(spectrum)
    weight = module.linear.weight.clone()
    for cast in (module.bfloat16, module.half, module.double):
        assert torch.equal(cast().linear.weight, weight)
    assert torch.nn.Sequential(module).to(torch.bfloat16)[0].linear.weight.dtype == torch.float32


def test_weights_are_frozen(spectrum: Spectrum) -> None:
    assert not any(p.requires_grad for p in FilterModule.from_spectrum(spectrum).parameters())


def test_save_and_load(spectrum: Spectrum, tmp_path: Path) -> None:
    module = FilterModule.from_spectrum(spectrum, ratio=3)
    module.save(str(tmp_path))
    loaded = FilterModule.load(str(tmp_path))
    assert torch.equal(loaded.linear.weight, module.linear.weight)
    assert loaded.provenance == module.provenance
    assert json.loads((tmp_path / "config.json").read_text()).keys() == {
        "in_features",
        "out_features",
        "bias",
        "activation_function",
    }
    dense = Dense.load(str(tmp_path))
    assert torch.equal(dense.linear.weight, module.linear.weight)


def test_load_refuses_a_dense_that_is_no_filter(tmp_path: Path) -> None:
    Dense(8, 4).save(str(tmp_path))
    with pytest.raises(PipelineError):
        FilterModule.load(str(tmp_path))


def test_copies_and_pickles(spectrum: Spectrum) -> None:
    module = FilterModule.from_spectrum(spectrum)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert isinstance(twin, FilterModule)
        assert torch.equal(twin.linear.weight, module.linear.weight)
        assert twin.provenance == module.provenance
    assert "FilterModule" in repr(module)


@pytest.mark.slow
def test_any_pipeline_saved_in_the_plain_way_loads_without_the_package(
    tmp_path: Path, plain_python: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    source = tiny_llama(tmp_path / "llm", tokenizer=tokenizer)
    model = SentenceTransformer(str(source), device="cpu")
    model.append(FilterModule.from_pretrained(source, ratio=4))
    expected = model.encode(TEXTS)
    assert expected.shape == (len(TEXTS), WIDTH // 4)
    with caplog.at_level(logging.WARNING):
        model.save_pretrained(str(tmp_path / "saved"))
    assert "st_embfilter.save_pretrained(model, path)" in caplog.text
    found, _ = embed(plain_python, tmp_path / "saved", local_files_only=True)
    torch.testing.assert_close(
        torch.from_numpy(found), torch.from_numpy(expected), atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
def test_encodes_in_another_process(tiny_model: SentenceTransformer) -> None:
    texts = [f"text number {number}" for number in range(8)]
    pool = tiny_model.start_multi_process_pool(["cpu"])
    try:
        found = tiny_model.encode(texts, pool=pool, chunk_size=4)
    finally:
        tiny_model.stop_multi_process_pool(pool)
    torch.testing.assert_close(found, tiny_model.encode(texts), atol=1e-5, rtol=1e-5)


def test_pooling_comes_before(tiny_model: SentenceTransformer) -> None:
    assert [type(module) for module in tiny_model][1:] == [Pooling, FilterModule]
