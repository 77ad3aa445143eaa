"""The exact form: the reference's tokens, and a repository that carries its own code."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from st_embfilter import build_model, save_pretrained, verify
from st_embfilter.encoding.loading import load_model
from st_embfilter.errors import CheckpointError, TemplateError, VerificationError
from st_embfilter.pipeline.prompts import PROMPTS
from support.comparing import relative
from support.hub_server import serve
from support.models import byte_level_tokenizer, sentencepiece_tokenizer, tiny_llama
from support.other_interpreter import TEXTS, embed

pytestmark = pytest.mark.slow

FORMS = ("prompteol", "echo")


@pytest.fixture(scope="module", params=FORMS)
def exact_model(request: pytest.FixtureRequest, tiny: Path) -> SentenceTransformer:
    return build_model(tiny, band="edge", prompt=request.param, format="exact", device="cpu")


@pytest.fixture(scope="module")
def exact_artifact(
    exact_model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_pretrained(exact_model, tmp_path_factory.mktemp("exact") / "model")


def ids_of(model: SentenceTransformer, text: str) -> list[int]:
    ids: list[int] = model[0].preprocess([text])["input_ids"][0].tolist()
    return ids


@given(text=st.text(max_size=60))
def test_prompteol_is_tokenized_as_one_string(tiny: Path, text: str) -> None:
    model = cached_model(tiny, "prompteol")
    whole = PROMPTS["prompteol"].replace("{text}", text)
    assert ids_of(model, text) == byte_level_tokenizer()(whole)["input_ids"]


@given(text=st.text(max_size=60))
def test_echo_is_tokenized_in_pieces(tiny: Path, text: str) -> None:
    model, tokenizer = cached_model(tiny, "echo"), byte_level_tokenizer()
    front, middle, copy = (
        tokenizer(piece)["input_ids"]
        for piece in ("Rewrite the following paragraph: ", ". The rewritten paragraph: ", text)
    )
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids_of(model, text) == [bos, *front, *copy, *middle, *copy, eos]


@cache
def cached_model(source: Path, prompt: str) -> SentenceTransformer:
    return build_model(source, band="edge", prompt=prompt, format="exact", device="cpu")


@pytest.mark.parametrize("limit", [64, 65])
def test_prompteol_keeps_both_halves_of_the_prompt(tiny: Path, limit: int) -> None:
    model = build_model(tiny, band="edge", format="exact", max_seq_length=limit, device="cpu")
    text = " ".join(f"number {i}" for i in range(100))
    whole = byte_level_tokenizer()(PROMPTS["prompteol"].replace("{text}", text))["input_ids"]
    expected = whole[: limit // 2] + whole[-((limit + 1) // 2) :]
    assert ids_of(model, text) == expected and len(expected) == limit


def test_echo_keeps_the_first_tokens_of_the_text(tiny: Path) -> None:
    model = build_model(
        tiny, band="edge", prompt="echo", format="exact", max_seq_length=20, device="cpu"
    )
    long = " ".join(f"number {i}" for i in range(100))
    copy = byte_level_tokenizer()(long)["input_ids"][:20]
    features = model[0].preprocess([long, "short"])
    ids = features["input_ids"][0].tolist()
    assert ids[-21:-1] == copy and ids[-21 - 20 - 100 :].count(copy[0]) >= 2
    assert features["pooled_mask"].sum(dim=1).tolist() == [
        21,
        len(byte_level_tokenizer()("short")["input_ids"]) + 1,
    ]


def test_echo_pools_the_second_copy_and_eos(tiny: Path) -> None:
    model = build_model(tiny, band="edge", prompt="echo", format="exact", ratio=1, device="cpu")
    ids = torch.tensor([ids_of(model, "Two dogs run")])
    copy = len(byte_level_tokenizer()("Two dogs run")["input_ids"])
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(tiny)(ids).last_hidden_state[0]
        expected = hidden[-copy - 1 :].mean(dim=0) @ model[2].linear.weight.T
    # In company, so that there is padding behind it.
    found = model.encode(["Two dogs run", "A much longer text, to be padded to"])[0]
    assert relative(found, expected.numpy()) < 1e-5


def test_company_and_length_change_nothing(exact_model: SentenceTransformer) -> None:
    texts = [*TEXTS, "", "x"]
    alone = np.stack([exact_model.encode(text) for text in texts])
    assert relative(exact_model.encode(texts), alone) <= 1e-5


def test_loads_without_the_package(
    exact_model: SentenceTransformer, exact_artifact: Path, plain_python: Path
) -> None:
    found, _ = embed(plain_python, exact_artifact, trust_remote_code=True)
    assert relative(found, exact_model.encode(TEXTS)) <= 1e-5


def test_loads_from_a_hub_without_the_package(
    exact_model: SentenceTransformer, exact_artifact: Path, plain_python: Path
) -> None:
    with serve({"org/model": exact_artifact}) as hub:
        found, _ = embed(plain_python, exact_artifact, hub=hub, trust_remote_code=True)
    assert relative(found, exact_model.encode(TEXTS)) <= 1e-5


def test_loads_with_the_package(exact_model: SentenceTransformer, exact_artifact: Path) -> None:
    trusted = SentenceTransformer(str(exact_artifact), device="cpu", trust_remote_code=True)
    for model in (trusted, load_model(exact_artifact, device="cpu")):
        assert relative(model.encode(TEXTS), exact_model.encode(TEXTS)) <= 1e-5


def test_verifies(exact_artifact: Path) -> None:
    assert "ExactTransformer" in verify(exact_artifact)[1].detail


@pytest.mark.parametrize("where", ["code", "more code", "auto_map"])
def test_other_code_is_not_run(exact_artifact: Path, tmp_path: Path, where: str) -> None:
    artifact = shutil.copytree(exact_artifact, tmp_path / "model")
    marker = tmp_path / "ran"
    code = f"\nopen({str(marker)!r}, 'w')\n"
    if where == "code":
        with (artifact / "exact_transformer.py").open("a") as file:
            file.write(code)
    else:
        (artifact / "modeling.py").write_text(code)
    if where == "auto_map":
        config = json.loads((artifact / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
        (artifact / "config.json").write_text(json.dumps(config))
    with pytest.raises(VerificationError):
        verify(artifact)
    with pytest.raises(CheckpointError, match="not run"):
        load_model(artifact, device="cpu")
    assert not marker.exists()


def test_queries_and_documents(tiny: Path, tmp_path: Path, plain_python: Path) -> None:
    query, document = "<{text}> asks for:", "<{text}>"  # One begins with the other.
    model = build_model(
        tiny,
        band="edge",
        format="exact",
        device="cpu",
        query_prompt=query,
        document_prompt=document,
    )
    artifact = save_pretrained(model, tmp_path / "model")
    for encode, prompt in (
        (model.encode, "prompteol"),
        (model.encode_query, query),
        (model.encode_document, document),
    ):
        alone = build_model(tiny, band="edge", format="exact", device="cpu", prompt=prompt)
        assert np.array_equal(encode(TEXTS), alone.encode(TEXTS))
    found, _ = embed(plain_python, artifact, prompt_name="query", trust_remote_code=True)
    assert relative(found, model.encode_query(TEXTS)) <= 1e-5


@pytest.mark.parametrize("legacy", [True, False])
def test_special_tokens_are_the_references(tmp_path: Path, legacy: bool) -> None:
    """A class that heeds `add_bos_token=False` gets bare pieces, others BOS in each."""
    source = tiny_llama(tmp_path / "llm", tokenizer=sentencepiece_tokenizer(legacy))
    config = json.loads((source / "tokenizer_config.json").read_text())
    for name, count in (("LlamaTokenizerFast", 1), ("PreTrainedTokenizerFast", 5)):
        config["tokenizer_class"] = name
        (source / "tokenizer_config.json").write_text(json.dumps(config))
        model = build_model(source, band="edge", prompt="echo", format="exact", device="cpu")
        assert ids_of(model, "cats sleep").count(1) == count
        whole = build_model(source, band="edge", format="exact", device="cpu")
        assert ids_of(whole, "cats sleep").count(1) == 1


def test_bad_prompts(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="--format exact"):
        build_model(tiny, band="edge", prompt="echo", query_prompt="echo")
    with pytest.raises(TemplateError, match="pools in one way"):
        build_model(tiny, band="edge", prompt="echo", query_prompt="prompteol", format="exact")
    with pytest.raises(TemplateError, match="no room"):
        build_model(tiny, band="edge", format="exact", max_seq_length=8)
    bare = byte_level_tokenizer()
    bare.eos_token = None
    short = tiny_llama(tmp_path / "short", max_position_embeddings=16)
    endless = tiny_llama(tmp_path / "endless", tokenizer=bare)
    for form in ("portable", "exact"):
        with pytest.raises(TemplateError, match="no room"):
            build_model(short, band="edge", prompt="echo", format=form)
        with pytest.raises(TemplateError, match="EOS"):
            build_model(endless, band="edge", prompt="echo", format=form)


def test_portable_echo_has_the_same_tokens(tiny: Path, plain_python: Path, tmp_path: Path) -> None:
    """What is pooled differs: all tokens, weighted by position."""
    limits = {"max_seq_length": 20, "device": "cpu", "prompt": "echo", "ratio": 1}
    exact = build_model(tiny, band="edge", format="exact", **limits)
    portable = build_model(tiny, band="edge", **limits)
    for text in ("Two dogs run.", "", "a", "dog " * 100):
        assert portable[0].tokenize([text])["input_ids"][0].tolist() == ids_of(exact, text)
    ids = torch.tensor([ids_of(exact, "Two dogs run")])
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(tiny)(ids).last_hidden_state[0]
    position = torch.arange(1.0, len(hidden) + 1)
    expected = (position @ hidden / position.sum()) @ portable[2].linear.weight.T
    found = portable.encode(["Two dogs run", "A much longer text, to be padded to"])[0]
    assert relative(found, expected.numpy()) < 1e-5
    found, _ = embed(plain_python, save_pretrained(portable, tmp_path / "model"))
    assert relative(found, portable.encode(TEXTS)) <= 1e-5


def test_portable_echo_fits_the_models_positions(tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / "llm", max_position_embeddings=100)
    model = build_model(source, band="edge", prompt="echo", device="cpu")
    length = model[0].tokenize(["dog " * 100])["input_ids"].shape[1]
    assert length in (99, 100)


def test_embeds_strings_only(exact_model: SentenceTransformer) -> None:
    with pytest.raises(TypeError, match="strings"):
        exact_model[0].preprocess([("a", "pair")])
