"""build_model: what the pipeline encodes, and that company doesn't change it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM

from st_embfilter import FilterModule, Spectrum, Unembedding, build_model, save_pretrained
from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.errors import BandError, CheckpointError, MisuseError, TemplateError
from support.comparing import relative
from support.families import save_tiny
from support.models import WIDTH, byte_level_tokenizer, sentencepiece_tokenizer, tiny_llama
from support.other_interpreter import TEXTS as EMBEDDED
from support.other_interpreter import embed

TEXTS = ["short", "a text of some more words than the first", "dog " * 60, "ünïcode 図書館", "x"]


def by_hand(source: Path, text: str, template: str) -> torch.Tensor:
    """The last token's final hidden state, from the causal language model itself."""
    model = AutoModelForCausalLM.from_pretrained(source)
    rendered = template.replace("{text}", text)
    ids = byte_level_tokenizer()(rendered, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden: torch.Tensor = model.model(ids).last_hidden_state[0, -1]
    return hidden


@pytest.mark.parametrize("prompt", ["prompteol", "none", "Text: <{text}>"])
def test_is_the_filtered_hidden_state_of_the_plain_text(tiny: Path, prompt: str) -> None:
    model = build_model(tiny, band="edge", prompt=prompt, device="cpu")
    template = model.tokenizer.init_kwargs["embfilter_template"]
    hidden = by_hand(tiny, "Two dogs run", template)
    expected = FilterModule.from_pretrained(tiny)({"sentence_embedding": hidden[None]})
    found = model.encode("Two dogs run")
    assert relative(found, expected["sentence_embedding"][0].numpy()) < 1e-5


def test_has_no_chat_template_though_the_source_has(tiny_model: SentenceTransformer) -> None:
    assert tiny_model.tokenizer.chat_template is None
    text = tiny_model.tokenizer.decode(tiny_model.tokenizer("cats")["input_ids"])
    assert text == 'Summarize the sentence: "cats" in one word:"'


@pytest.mark.parametrize("side", ["right", "left"])
def test_company_and_padding_side_change_nothing(
    tiny_model: SentenceTransformer, side: str
) -> None:
    alone = np.stack([tiny_model.encode(text) for text in TEXTS])
    tiny_model.tokenizer.padding_side = side
    try:
        together = tiny_model.encode(TEXTS)
        reversed_pairs = tiny_model.encode(TEXTS[::-1], batch_size=2)[::-1]
    finally:
        tiny_model.tokenizer.padding_side = "right"
    for row, expected in enumerate(alone):
        assert relative(together[row], expected) < 1e-5
        assert relative(reversed_pairs[row], expected) < 1e-5


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
@settings(max_examples=25)
def test_any_text_has_a_finite_embedding(tiny_model: SentenceTransformer, texts: list[str]) -> None:
    found = tiny_model.encode(texts)
    assert found.shape == (len(texts), WIDTH // 2) and np.isfinite(found).all()


def test_long_text_keeps_the_whole_prompt(tiny: Path) -> None:
    model = build_model(tiny, band="edge", max_seq_length=48, device="cpu")
    features = model.tokenize(["dog " * 300])
    assert features["input_ids"].shape == (1, 48)
    text = model.tokenizer.decode(features["input_ids"][0])
    assert text.startswith('Summarize the sentence: "dog') and text.endswith('" in one word:"')
    # What is cut off can't matter.
    same = model.encode(["dog " * 300, "dog " * 300 + "cat"])
    assert np.array_equal(same[0], same[1])


def test_limit_is_never_beyond_the_models_own(tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / "llm", max_position_embeddings=64)
    assert build_model(source, band="edge", device="cpu").max_seq_length == 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_backbones(tmp_path: Path, dtype: torch.dtype) -> None:
    source = tiny_llama(tmp_path / "llm", dtype=dtype, initializer_range=0.1)
    model = build_model(source, band="edge", device="cpu")
    assert model[0].auto_model.dtype == dtype
    assert model[2].linear.weight.dtype == torch.float32
    wide = build_model(source, band="edge", dtype=torch.float32, device="cpu")
    assert wide[0].auto_model.dtype == torch.float32
    assert relative(model.encode("Two dogs run"), wide.encode("Two dogs run")) < 0.1


def test_spectrum_may_be_given(tiny: Path, tiny_model: SentenceTransformer) -> None:
    spectrum = compute_spectrum(Unembedding.from_pretrained(tiny))
    model = build_model(tiny, band="edge", spectrum=spectrum, device="cpu")
    assert np.array_equal(model.encode("x"), tiny_model.encode("x"))
    other = Spectrum(torch.ones(3), torch.eye(3), {})
    with pytest.raises(MisuseError, match="width 3"):
        build_model(tiny, band="edge", spectrum=other)


PER_SIDE = {
    "prompt": 'Summarize the sentence: "{text}" in one word:"',
    "query_prompt": 'Summarize the question: "{text}" in one word:"',
}


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["byte level", "legacy", "metaspace"])
def test_queries_and_documents(tmp_path: Path, plain_python: Path, tokenizer: str) -> None:
    source = tiny_llama(
        tmp_path / "llm",
        tokenizer=byte_level_tokenizer(bos=True)
        if tokenizer == "byte level"
        else sentencepiece_tokenizer(tokenizer == "legacy"),
    )
    model = build_model(source, band="edge", device="cpu", **PER_SIDE)  # type: ignore[arg-type]
    texts = ["cats sleep", "(in brackets)", "dog " * 700]
    documents = build_model(source, band="edge", device="cpu").encode(texts)
    queries = build_model(
        source, band="edge", prompt=PER_SIDE["query_prompt"], device="cpu"
    ).encode(texts)
    for found, expected in (
        (model.encode(texts), documents),
        (model.encode_document(texts), documents),
        (model.encode_query(texts), queries),
    ):
        assert relative(found, expected) < 1e-5
    artifact = save_pretrained(model, tmp_path / "model")
    manifest = json.loads((artifact / "embfilter.json").read_text())
    assert manifest["prompt"] == PER_SIDE["prompt"]
    assert manifest["prompts"]["query"] == PER_SIDE["query_prompt"]
    found, _ = embed(plain_python, artifact, prompt_name="query")
    assert relative(found, model.encode_query(EMBEDDED)) < 1e-5
    loaded = SentenceTransformer(str(artifact), device="cpu")
    assert relative(loaded.encode(EMBEDDED), model.encode(EMBEDDED)) < 1e-5


def test_misuse_is_seen_before_the_backbone_is_loaded(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("loaded the backbone for nothing")

    monkeypatch.setattr("st_embfilter.checkpoint.backbone.load_backbone", fail)
    with pytest.raises(BandError):
        build_model(tiny, band="edge", ratio=0)
    with pytest.raises(TemplateError):
        build_model(tiny, band="edge", prompt="no place for a text")


def test_backbone_that_is_cut_off(tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / "llm")
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        build_model(source, band="edge")


def test_missing_shard(tmp_path: Path) -> None:
    """The filter needs only the one that holds W_U, the pipeline all."""
    save_tiny("Llama 2", tmp_path / "llm")
    index = json.loads((tmp_path / "llm" / "model.safetensors.index.json").read_text())
    files = index["weight_map"]
    lost = next(name for name in files.values() if name != files["lm_head.weight"])
    (tmp_path / "llm" / lost).unlink()
    assert FilterModule.from_pretrained(tmp_path / "llm").in_features == WIDTH
    with pytest.raises(CheckpointError, match=lost):
        build_model(tmp_path / "llm", band="edge", device="cpu")


def test_rotary_settings_that_this_transformers_does_not_read(tmp_path: Path) -> None:
    """Transformers 4 would take 10,000 for the rotary base, in silence."""
    source = tiny_llama(tmp_path / "llm")
    config = json.loads((source / "config.json").read_text())
    config.pop("rope_theta", None)
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    (source / "config.json").write_text(json.dumps(config))
    if TRANSFORMERS_MAJOR >= 5:
        inverse = build_model(source, band="edge", device="cpu")[0].auto_model.rotary_emb.inv_freq
        assert inverse[1] == pytest.approx(500 ** (-1 / 6))
    else:
        with pytest.raises(CheckpointError, match=r"saved by transformers 5.*upgrade"):
            build_model(source, band="edge", device="cpu")


@pytest.mark.parametrize("quantized", [False, True])
def test_backbone_that_lacks_weights(tmp_path: Path, quantized: bool) -> None:
    """Transformers draws these at random and goes on."""
    source = tiny_llama(tmp_path / "llm")
    weights = load_file(source / "model.safetensors")
    lost = weights.pop("model.layers.1.mlp.up_proj.weight")
    if quantized:
        weights["model.layers.1.mlp.up_proj.codes"] = lost.to(torch.uint8)
        config = json.loads((source / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "of next year"}
        (source / "config.json").write_text(json.dumps(config))
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks weights.*layers.1.mlp.up_proj"):
        build_model(source, band="edge", device="cpu")
