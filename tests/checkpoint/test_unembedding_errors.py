"""What is said of checkpoints that are broken, or of another kind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.errors import (
    CheckpointError,
    EmbFilterError,
    NoUnembeddingError,
    SourceNotFoundError,
)
from support.families import PALIGEMMA
from support.models import WIDTH

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}

SPEECH: dict[str, Any] = {
    "vocab_size": 97,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    **{f"{kind}_token_id": 0 for kind in ("pad", "bos", "eos", "decoder_start")},
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A good checkpoint, to be broken."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))


# What is done to a copy of the folder, the exception, and a part of its message.
Break = Callable[[Path], None]


def write(name: str, content: str | bytes) -> Break:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def index(name: object, raw: str | None = None) -> Break:
    """The weights in place, but an index that puts the head elsewhere, or a raw one."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        names = list(load_file(folder / "model-1.safetensors"))
        weights: dict[str, object] = dict.fromkeys(names, "model-1.safetensors")
        content = {"weight_map": {**weights, "lm_head.weight": name}}
        (folder / "model.safetensors.index.json").write_text(raw or json.dumps(content))

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


def adapter(*missing: str) -> Break:
    """A repository of PEFT's in the folder's place."""

    def change(folder: Path) -> None:
        for name in missing:
            (folder / name).unlink()
        save_file({"lora_A.weight": torch.ones(2)}, folder / "adapter_model.safetensors")
        content = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
        (folder / "adapter_config.json").write_text(json.dumps(content))

    return change


def save_paligemma(folder: Path) -> None:
    name, settings = PALIGEMMA
    config = getattr(transformers, name)(**settings)
    resave(PaliGemmaForConditionalGeneration(config))(folder)


def shadow(folder: Path) -> None:
    """A folder where the weights should be."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


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
    "architectures of odd type": (lambda f: configure(f, architectures=7), CORRUPT, "config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), CORRUPT, "model.safetensors"),
    "pickled weights": (pickled, CORRUPT, r"\.bin"),
    "truncated weights": (truncate, CORRUPT, "truncated"),
    "weights an HTML page": (write("model.safetensors", "<html>" * 99), CORRUPT, "corrupt"),
    "weights a folder": (shadow, CORRUPT, "model.safetensors"),
    "no head": (replace_head(None), HEADLESS, "lm_head.weight"),
    "head in int8": (
        replace_head(torch.ones(411, WIDTH, dtype=torch.int8)),
        CORRUPT,
        "quantized",
    ),
    "head of one dimension": (replace_head(torch.ones(411)), CORRUPT, "not a matrix"),
    "head of no rows": (replace_head(torch.ones(0, WIDTH)), CORRUPT, "not a matrix"),
    "index not JSON": (index("", raw="{"), CORRUPT, "not JSON"),
    "index without a map": (index("", raw="{}"), CORRUPT, "weight_map"),
    "index of a list": (index("", raw='{"weight_map": ["a"]}'), CORRUPT, "weight_map"),
    "shard not there": (index("model-2.safetensors"), CORRUPT, "model-2.safetensors"),
    "shard without the head": (index("model-0.safetensors"), CORRUPT, "model-0.safetensors"),
    "shard above the folder": (index("../../etc/passwd"), CORRUPT, "outside"),
    "shard of an absolute path": (index("/etc/passwd"), CORRUPT, "outside"),
    "shard of a Windows path": (index("..\\..\\secret"), CORRUPT, "outside"),
    "shard without a name": (index(""), CORRUPT, "tiny"),
    "shard with a null byte": (index("model\0.safetensors"), CORRUPT, "tiny"),
    "shard of a long name": (index("m" * 300), CORRUPT, "tiny"),
    "shard named by null": (index(None), CORRUPT, "None"),
    "an encoder": (
        resave(BertModel(BertConfig(**SMALL))),
        HEADLESS,
        "BertModel.*no language-model head",
    ),
    "a backbone": (resave(LlamaModel(LlamaConfig(**SMALL))), HEADLESS, "LlamaModel"),
    "a backbone that does not say so": (
        resave(LlamaModel(LlamaConfig(**SMALL)), architectures="absent"),
        HEADLESS,
        "without its head",
    ),
    "a speech model": (
        lambda f: resave(WhisperForConditionalGeneration(WhisperConfig(**SPEECH)))(f),
        HEADLESS,
        "WhisperForConditionalGeneration.*no language-model head",
    ),
    "a speech recognizer": (
        lambda f: configure(f, architectures=["Wav2Vec2ForCTC"], model_type="wav2vec2"),
        HEADLESS,
        "Wav2Vec2ForCTC",
    ),
    "an encoder-decoder": (
        lambda f: resave(T5ForConditionalGeneration(T5Config(**SMALL, d_model=32, d_kv=16)))(f),
        HEADLESS,
        "T5ForConditionalGeneration",
    ),
    "a model that reads both ways": (
        lambda f: save_paligemma(f),
        HEADLESS,
        "not causal",
    ),
    "an adapter": (
        adapter("config.json", "model.safetensors"),
        CORRUPT,
        "adapter of org/base, without its base: merge",
    ),
    "an adapter with a configuration": (
        adapter("model.safetensors"),
        CORRUPT,
        "adapter of org/base, without its base: merge",
    ),
    "a masked language model": (
        lambda f: resave(BertForMaskedLM(BertConfig(**SMALL)))(f),
        HEADLESS,
        "BertForMaskedLM.*no language-model head that predicts the next token",
    ),
}


def test_config_field_of_odd_type(folder: Path, tiny: Path) -> None:
    """Transformers checks them from 5.0 on, before the matrix is looked at."""
    configure(folder, hidden_size="no")
    try:
        found = Unembedding.from_pretrained(folder)
    except CheckpointError as error:
        assert "hidden_size" in str(error) and "\n" not in str(error)
    else:
        assert found.sha256 == Unembedding.from_pretrained(tiny).sha256


def test_code_of_the_checkpoint_is_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = folder / "ran"
    (folder / "configuration_odd.py").write_text(
        f"from transformers import PretrainedConfig\nopen({str(marker)!r}, 'w').close()\n"
        f"class OddConfig(PretrainedConfig):\n    model_type = 'odd'\n"
    )
    configure(folder, model_type="odd", auto_map={"AutoConfig": "configuration_odd.OddConfig"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(CheckpointError, match="code") as caught:
        Unembedding.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("case", BROKEN)
def test_broken_checkpoint(case: str, folder: Path) -> None:
    change, error, message = BROKEN[case]
    if case == "shard without the head":
        save_file({"v": torch.ones(2)}, folder / "model-0.safetensors")
    change(folder)
    with pytest.raises(error, match=message) as caught:
        Unembedding.from_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
