"""W_U of every kind of checkpoint, against the model's own output embeddings; and broken ones."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from st_embfilter import unembedding as module
from st_embfilter.errors import (
    CheckpointError,
    EmbFilterError,
    NoUnembeddingError,
    SourceNotFoundError,
)
from st_embfilter.unembedding import Unembedding

VOCABULARY, WIDTH = 97, 32
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
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
    return FAMILIES[family](tied).to(dtype)


def head(model: PreTrainedModel) -> Tensor:
    weight: Tensor = model.get_output_embeddings().weight.detach()
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
    folder = tmp_path_factory.mktemp("saved") / "llama"
    build("llama", False).save_pretrained(folder)
    return folder


@pytest.fixture
def llama(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


@pytest.mark.parametrize("rows", [1, 5, 96, 97, 98])
def test_blocks(saved: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Unembedding.from_pretrained(saved)
    expected = torch.cat(list(whole.row_blocks()))
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", rows * WIDTH + WIDTH // 2)
    unembedding = Unembedding.from_pretrained(saved)
    blocks = list(unembedding.row_blocks())
    assert max(map(len, blocks)) == min(rows, VOCABULARY)
    assert torch.equal(torch.cat(blocks), expected)
    assert unembedding.sha256 == whole.sha256


def test_a_row_wider_than_a_block(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", WIDTH - 1)
    assert len(list(Unembedding.from_pretrained(saved).row_blocks())) == VOCABULARY


def test_a_pass_broken_off_gives_no_hash_of_a_part(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 5 * WIDTH)
    unembedding = Unembedding.from_pretrained(saved)
    next(unembedding.row_blocks())
    assert unembedding.sha256 == Unembedding.from_pretrained(saved).sha256


def test_provenance_does_not_tell_the_folders_place(saved: Path) -> None:
    provenance = Unembedding.from_pretrained(saved).provenance()
    assert provenance["source"] == "llama" and provenance["tensor"] == "lm_head.weight"
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
    other = LlamaForCausalLM(LlamaConfig(**LLAMA))
    other.save_pretrained(tmp_path / "other", max_shard_size="10KB")
    for path in (tmp_path / "other").glob("model*"):
        shutil.copy(path, llama)
    check(llama, head(AutoModelForCausalLM.from_pretrained(llama)), "F32")


# What is done to a copy of the folder, the exception, and a part of its message.
Break = Callable[[Path], None]


def write(name: str, content: str | bytes) -> Break:
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda folder: void((folder / name).write_bytes(raw))


def void(_: object) -> None:
    """For lambdas that must return nothing."""


def index(name: object) -> Break:
    """The weights in place, but an index that puts the head elsewhere."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        names = list(load_file(folder / "model-1.safetensors"))
        weights: dict[str, object] = dict.fromkeys(names, "model-1.safetensors")
        content = {"weight_map": {**weights, "lm_head.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


def replace_head(tensor: Tensor | None) -> Break:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        if tensor is not None:
            weights["lm_head.weight"] = tensor
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def resave(model: PreTrainedModel, **config: Any) -> Break:
    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        model.save_pretrained(folder)
        configure(folder, **config)

    return change


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def shadow(folder: Path) -> None:
    """A folder where the weights should be."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


LLAMA_CONFIG = LlamaConfig(**LLAMA)
HEADLESS, CORRUPT = NoUnembeddingError, CheckpointError
BROKEN: dict[str, tuple[Break, type[EmbFilterError], str]] = {
    "missing": (lambda f: shutil.rmtree(f), SourceNotFoundError, "no such"),
    "no config": (lambda f: (f / "config.json").unlink(), CORRUPT, "config.json"),
    "config not JSON": (write("config.json", "{model_type: llama"), CORRUPT, "not JSON"),
    "config not text": (write("config.json", b"\xff\x00\xfe"), CORRUPT, "not JSON"),
    "config a list": (write("config.json", "[]"), CORRUPT, "not a JSON object"),
    "config nested": (write("config.json", "[" * 100_000), CORRUPT, "config.json"),
    "config empty": (write("config.json", ""), CORRUPT, "not JSON"),
    "unknown model type": (lambda f: configure(f, model_type="llama9"), CORRUPT, "llama9"),
    "no model type": (lambda f: configure(f, model_type="absent"), CORRUPT, "model_type"),
    "odd model type": (lambda f: configure(f, model_type=["llama"]), CORRUPT, "config.json"),
    "config field of odd type": (lambda f: configure(f, hidden_size="no"), CORRUPT, "hidden_size"),
    "architectures of odd type": (lambda f: configure(f, architectures=7), CORRUPT, "config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), CORRUPT, "model.safetensors"),
    "pickled weights": (pickled, CORRUPT, r"\.bin"),
    "truncated weights": (truncate, CORRUPT, "truncated"),
    "weights an HTML page": (write("model.safetensors", "<html>" * 99), CORRUPT, "corrupt"),
    "weights a folder": (shadow, CORRUPT, "model.safetensors"),
    "no head": (replace_head(None), HEADLESS, "lm_head.weight"),
    "head in int8": (
        replace_head(torch.ones(VOCABULARY, WIDTH, dtype=torch.int8)), CORRUPT, "quantized"
    ),
    "head of one dimension": (replace_head(torch.ones(VOCABULARY)), CORRUPT, "not a matrix"),
    "head of no rows": (replace_head(torch.ones(0, WIDTH)), CORRUPT, "not a matrix"),
    "index not JSON": (lambda f: (index("")(f), write("model.safetensors.index.json", "{")(f))[0],
                       CORRUPT, "not JSON"),
    "index without a map": (
        lambda f: (index("")(f), write("model.safetensors.index.json", "{}")(f))[0],
        CORRUPT, "weight_map",
    ),
    "shard not there": (index("model-2.safetensors"), CORRUPT, "model-2.safetensors"),
    "shard without the head": (index("model-0.safetensors"), CORRUPT, "model-0.safetensors"),
    "shard above the folder": (index("../../etc/passwd"), CORRUPT, "outside"),
    "shard of an absolute path": (index("/etc/passwd"), CORRUPT, "outside"),
    "shard of a Windows path": (index("..\\..\\secret"), CORRUPT, "outside"),
    "shard without a name": (index(""), CORRUPT, "llama"),
    "shard with a null byte": (index("model\0.safetensors"), CORRUPT, "llama"),
    "shard of a long name": (index("m" * 300), CORRUPT, "llama"),
    "shard named by null": (index(None), CORRUPT, "None"),
    "an encoder": (
        resave(BertModel(BertConfig(**LLAMA))), HEADLESS, "BertModel.*no language-model head"
    ),
    "a backbone": (resave(LlamaModel(LLAMA_CONFIG)), HEADLESS, "LlamaModel"),
    "a backbone that does not say so": (
        resave(LlamaModel(LLAMA_CONFIG), architectures="absent"), HEADLESS, "without its head"
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoint(case: str, llama: Path) -> None:
    change, error, message = BROKEN[case]
    if case == "shard without the head":
        save_file({"v": torch.ones(2)}, llama / "model-0.safetensors")
    change(llama)
    with pytest.raises(EmbFilterError, match=message) as caught:
        Unembedding.from_pretrained(llama)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value) and "llama" in str(caught.value)
