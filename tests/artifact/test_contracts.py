"""What Text Embeddings Inference and vLLM ask of an artifact's files, where neither can be run.

Each test names the rule's source: repository, file, commit. docs/compatibility.md lists them all.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from st_embfilter import build_model, save_pretrained
from st_embfilter.pipeline.prompts import PROMPTS
from support.families import save_tiny
from support.other_interpreter import TEXTS

PREFIX = "sentence_transformers.models."


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module", params=["prompteol", "none"])
def artifact(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    model = build_model(tiny, band="edge", prompt=request.param, device="cpu")
    return save_pretrained(model, tmp_path_factory.mktemp("contract") / "model")


def test_module_types(artifact: Path) -> None:
    """Both compare them literally; any other type, and the filter is left out in silence.

    text-embeddings-inference: backends/src/lib.rs, ModuleType, 51a42e0e.
    vllm: vllm/transformers_utils/config.py, try_get_dense_modules, 0036026e.
    """
    modules = read(artifact / "modules.json")
    assert all(set(module) == {"idx", "name", "path", "type"} for module in modules)
    known = {PREFIX + name for name in ("Transformer", "Pooling", "Dense", "Normalize")}
    assert {module["type"] for module in modules} <= known
    (dense,) = [module for module in modules if module["type"] == f"{PREFIX}Dense"]
    assert (artifact / dense["path"] / "config.json").is_file()


def test_pooling(artifact: Path) -> None:
    """The path is fixed, two keys must be there, and only three modes are known.

    text-embeddings-inference: router/src/lib.rs, PoolConfig, 51a42e0e.
    vllm: vllm/transformers_utils/config.py, get_pooling_config, 0036026e.
    """
    config = read(artifact / "1_Pooling" / "config.json")
    assert {"pooling_mode_cls_token", "pooling_mode_mean_tokens"} <= set(config)
    on = [key for key, value in config.items() if key.startswith("pooling_mode") and value]
    assert on == ["pooling_mode_lasttoken"]


def test_dense(artifact: Path) -> None:
    """Keys, the activation's name, the file's and the tensor's.

    text-embeddings-inference: backends/candle/src/models/dense.rs, 0d1b698f.
    vllm: vllm/model_executor/models/adapters.py, _load_st_projector, 3b2aedb7.
    """
    config = read(artifact / "2_Dense" / "config.json")
    assert config["activation_function"] == "torch.nn.modules.linear.Identity"
    assert config["bias"] is False  # vLLM's default is True.
    (name, weight), *others = load_file(artifact / "2_Dense" / "model.safetensors").items()
    assert name == "linear.weight" and not others
    assert tuple(weight.shape) == (config["out_features"], config["in_features"])


def test_length(artifact: Path) -> None:
    """A number, and for vLLM both keys.

    text-embeddings-inference: router/src/lib.rs, STConfig, 51a42e0e.
    vllm: vllm/transformers_utils/config.py, get_sentence_transformer_tokenizer_config, 0036026e.
    """
    config = read(artifact / "sentence_bert_config.json")
    assert isinstance(config["max_seq_length"], int) and config["do_lower_case"] is False


def test_tokenizer_alone_puts_and_keeps_the_prompt(tiny_artifact: Path) -> None:
    """Both hand a text to tokenizer.json with its post-processor, and have it cut there.

    text-embeddings-inference: core/src/tokenization.rs, encode_input, 265deb2a.
    vllm: vllm/renderers/params.py, 1aa021e8.
    """
    limit = read(tiny_artifact / "sentence_bert_config.json")["max_seq_length"]
    tokenizer = Tokenizer.from_file(str(tiny_artifact / "tokenizer.json"))
    assert tokenizer.truncation is None and tokenizer.padding is None
    tokenizer.enable_truncation(limit)
    model = SentenceTransformer(str(tiny_artifact), device="cpu")
    before, after = PROMPTS["prompteol"].split("{text}")
    for text in TEXTS:
        encoded = tokenizer.encode(text, add_special_tokens=True)
        assert encoded.ids == model.tokenizer(text, truncation=True, max_length=limit).input_ids
        written = tokenizer.decode(encoded.ids, skip_special_tokens=False)
        assert written.startswith(before) and written.endswith(after)
    assert len(encoded.ids) == limit


def test_prompts_are_texts(artifact: Path) -> None:
    """A null stops the server.

    text-embeddings-inference: router/src/lib.rs, NewSTConfig, 51a42e0e.
    """
    prompts = read(artifact / "config_sentence_transformers.json")["prompts"]
    assert all(isinstance(prompt, str) for prompt in prompts.values())


def weight_names(artifact: Path) -> set[str]:
    names = set()
    for path in artifact.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    return names


@pytest.mark.parametrize(
    ("family", "prefix"), [("Mistral", ""), ("Llama 2", ""), ("Qwen2", "model.")]
)
def test_weight_names(family: str, prefix: str, tmp_path: Path) -> None:
    """Llama and Mistral without a prefix, Qwen2 with one; vLLM and transformers take both.

    text-embeddings-inference: backends/candle/src/models/flash_mistral.rs, 07f9b95a (Llama's too),
    and flash_qwen2.rs, 265deb2a.
    """
    save_tiny(family, tmp_path / "llm")
    artifact = save_pretrained(
        build_model(tmp_path / "llm", band="edge", device="cpu"), tmp_path / "model"
    )
    names = weight_names(artifact)
    expected = {"embed_tokens.weight", "norm.weight", "layers.0.self_attn.q_proj.weight"}
    assert {prefix + name for name in expected} <= names
    assert all(name.startswith(prefix) for name in names)
    assert not [name for name in names if "lm_head" in name]


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("Falcon 7B", "transformer."),
        ("Falcon 40B", "transformer."),
        ("GPT-J", "transformer."),
        ("Mamba", "backbone."),
        ("Mamba 2", "backbone."),
    ],
)
def test_weight_names_as_in_the_language_model(family: str, prefix: str, tmp_path: Path) -> None:
    """vLLM 0.32 (model_executor/models/falcon.py, gpt_j.py, mamba.py) maps none without them."""
    save_tiny(family, tmp_path / "llm")
    model = build_model(tmp_path / "llm", band="edge", device="cpu")
    artifact = save_pretrained(model, tmp_path / "model")
    assert all(name.startswith(prefix) for name in weight_names(artifact))
    found = SentenceTransformer(str(artifact), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, model.encode(TEXTS, convert_to_tensor=True))


def test_weight_names_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of a sharded checkpoint names them alike."""
    save_tiny("Qwen2", tmp_path / "llm")
    model = build_model(tmp_path / "llm", band="edge", device="cpu")
    save = model[0].auto_model.save_pretrained
    monkeypatch.setattr(
        model[0].auto_model, "save_pretrained", lambda path: save(path, max_shard_size="60KB")
    )
    artifact = save_pretrained(model, tmp_path / "model")
    index = read(artifact / "model.safetensors.index.json")["weight_map"]
    assert set(index) == weight_names(artifact) and len(set(index.values())) > 1
    found = SentenceTransformer(str(artifact), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, model.encode(TEXTS, convert_to_tensor=True))


def test_configuration(tiny: Path, tmp_path: Path) -> None:
    """One end-of-text token, the rotary base at the top, the class's name, dimensions by request.

    text-embeddings-inference: backends/candle/src/models/llama.rs, LlamaConfig, 1a7f78be.
    vllm: vllm/config/model.py, 18ec6629: a name that ends in "Model" is converted to embed.
    """
    model = build_model(tiny, band="edge", device="cpu")
    model[0].auto_model.config.eos_token_id = [2, 5]
    config = read(save_pretrained(model, tmp_path / "model") / "config.json")
    assert config["eos_token_id"] == 2 and isinstance(config["rope_theta"], float | int)
    assert config["architectures"] == ["LlamaModel"]
    assert config["is_matryoshka"] is True
    other = build_model(tiny, band="head", device="cpu")
    other_config = read(save_pretrained(other, tmp_path / "other") / "config.json")
    assert "is_matryoshka" not in other_config
