"""W_U of every kind of checkpoint, against the model's own output embeddings."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from st_embfilter.checkpoint import unembedding as module
from st_embfilter.checkpoint.unembedding import Unembedding

VOCABULARY, WIDTH = 97, 32
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
OPT = {**LLAMA, "ffn_dim": 40, "word_embed_proj_dim": WIDTH, "max_position_embeddings": 50}
FAMILIES: dict[str, Callable[[bool], PreTrainedModel]] = {
    "llama": lambda tied: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=tied)),
    "gpt2": lambda tied: GPT2LMHeadModel(GPT2Config(**GPT2, tie_word_embeddings=tied)),
    "neox": lambda tied: GPTNeoXForCausalLM(GPTNeoXConfig(**LLAMA, tie_word_embeddings=tied)),
    "opt": lambda tied: OPTForCausalLM(OPTConfig(**OPT, tie_word_embeddings=tied)),
    "falcon": lambda tied: FalconForCausalLM(FalconConfig(**LLAMA, tie_word_embeddings=tied)),
}
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def build(family: str, tied: bool, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(7)
    model = FAMILIES[family](tied)
    torch.nn.Module.to(model, dtype)
    return model


def head(model: PreTrainedModel) -> Tensor:
    weight: Tensor = model.get_output_embeddings().weight.detach()  # type: ignore[no-untyped-call]
    return weight


def check(folder: Path, expected: Tensor, dtype: str) -> None:
    unembedding = Unembedding.from_pretrained(folder)
    blocks = list(unembedding.row_blocks())
    rows = torch.cat(blocks)
    assert rows.dtype == expected.dtype and torch.equal(rows, expected)
    assert unembedding.shape == expected.shape == (VOCABULARY, WIDTH)
    assert unembedding.dtype == dtype
    stored = expected.contiguous().view(torch.uint8).numpy().tobytes()
    assert unembedding.nbytes == len(stored)
    assert unembedding.sha256 == hashlib.sha256(stored).hexdigest()
    assert unembedding.revision is None


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_the_models(
    family: str, tied: bool, dtype: str, sharded: bool, tmp_path: Path
) -> None:
    model = build(family, tied, DTYPES[dtype])
    model.save_pretrained(tmp_path, max_shard_size="10KB" if sharded else "5GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    check(tmp_path, head(model), dtype)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied Llama in one file. Tests that change it take ``llama``."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    build("llama", False).save_pretrained(folder)
    return folder


@pytest.fixture
def llama(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


@pytest.mark.parametrize("rows", [1, 5, 96, 97, 98])
def test_blocks(saved: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Unembedding.from_pretrained(saved)
    expected = torch.cat(list(whole.row_blocks()))
    monkeypatch.setattr(module, "BLOCK_ROWS", rows)
    unembedding = Unembedding.from_pretrained(saved)
    blocks = list(unembedding.row_blocks())
    assert max(map(len, blocks)) == min(rows, VOCABULARY)
    assert torch.equal(torch.cat(blocks), expected)
    assert unembedding.sha256 == whole.sha256


def test_a_pass_broken_off_gives_no_hash_of_a_part(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 5)
    unembedding = Unembedding.from_pretrained(saved)
    next(unembedding.row_blocks())
    assert unembedding.sha256 == Unembedding.from_pretrained(saved).sha256


def test_provenance_does_not_tell_the_folders_place(saved: Path) -> None:
    provenance = Unembedding.from_pretrained(saved).provenance()
    assert provenance["source"] == "tiny" and provenance["tensor"] == "lm_head.weight"
    assert str(saved.parent) not in json.dumps(provenance)


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))


def test_a_head_stored_beside_tied_embeddings_is_the_head(llama: Path) -> None:
    configure(llama, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(llama)
    check(llama, head(model), "F32")


def test_a_head_stored_in_place_of_tied_embeddings(llama: Path) -> None:
    configure(llama, tie_word_embeddings=True)
    weights = load_file(llama / "model.safetensors")
    expected = weights["lm_head.weight"].clone()
    del weights["model.embed_tokens.weight"]
    save_file(weights, llama / "model.safetensors", {"format": "pt"})
    check(llama, expected, "F32")


def test_the_file_that_transformers_takes(llama: Path, tmp_path: Path) -> None:
    """A folder that was first saved in shards, and then in one file."""
    torch.manual_seed(8)
    other = LlamaForCausalLM(LlamaConfig(**LLAMA))
    other.save_pretrained(tmp_path / "other", max_shard_size="10KB")
    for path in (tmp_path / "other").glob("model*"):
        shutil.copy(path, llama)
    check(llama, head(AutoModelForCausalLM.from_pretrained(llama)), "F32")
