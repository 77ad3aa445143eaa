"""An artifact's files, in what all runtimes read alike: weights, configurations, tokenizer."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from st_embfilter._compat import Pooling, pooling_modes
from st_embfilter.layout.exact_transformer import NAMED_TEMPLATES_KEY, TEMPLATE_KEY
from st_embfilter.layout.names import POOLING_KEYS
from st_embfilter.pipeline.prompt_tokenizer import bake_template
from st_embfilter.pipeline.prompts import PLACEHOLDER
from st_embfilter.spectral.bands import NESTED

# A model with another one is unknown to 4 anyway, and 5 would stumble over keys meant for 4.
ROPE_TYPES_OF_TRANSFORMERS_4 = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
# Weights' names begin so where a server looks for them under those of the whole language model:
# Text Embeddings Inference Qwen2's, vLLM the others'. Everybody else takes both.
PREFIXES = {
    "qwen2": "model",
    **dict.fromkeys(("falcon", "gptj"), "transformer"),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba"), "backbone"),
}


def write_backbone(backbone: PreTrainedModel, folder: Path, band: str) -> None:
    """Write the language model's weights, and a configuration that all runtimes read alike."""
    backbone.save_pretrained(folder)
    config_path = folder / "config.json"
    config = portable_config(json.loads(config_path.read_text(encoding="utf-8")))
    if band in NESTED:
        # vLLM takes a request's `dimensions` only of a model that says it is nested.
        config["is_matryoshka"] = True
    write_json(config_path, config)
    if prefix := PREFIXES.get(config["model_type"]):
        _prefix_weights(folder, prefix)


def portable_config(config: dict[str, Any]) -> dict[str, Any]:
    """A backbone's ``config.json`` that transformers 4 and 5 read alike.

    5 writes ``rope_parameters`` and ``dtype``. 4 knows neither: it would take 10,000 for the
    rotary base, in silence.
    """
    config = {key: value for key, value in config.items() if not key.endswith("name_or_path")}
    dtype = config.get("dtype", config.get("torch_dtype"))
    if dtype is not None:
        config |= {"dtype": dtype, "torch_dtype": dtype}
    if isinstance(config.get("eos_token_id"), list):
        # Chat models list several. Text Embeddings Inference reads one, and here none is used.
        config["eos_token_id"] = config["eos_token_id"][0]
    rope = config.get("rope_parameters")
    if not rope:
        return config
    if "sliding_attention" in rope:
        # Gemma 3: one base for layers that see everything, another for those with a window.
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope.get("rope_type", "default") not in ROPE_TYPES_OF_TRANSFORMERS_4:
        return config
    moved = {"rope_theta", "partial_rotary_factor"}
    config |= {key: rope[key] for key in moved if key in rope}
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"] = rope["rope_theta"]
        config["rotary_pct"] = rope.get("partial_rotary_factor", 1.0)
    scaling = {key: value for key, value in rope.items() if key not in moved}
    config["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    return config


def _prefix_weights(folder: Path, prefix: str) -> None:
    """Name the weights as in a checkpoint of the whole language model, as ``model.layers…``."""
    for path in folder.glob("*.safetensors"):
        tensors = {f"{prefix}.{name}": tensor for name, tensor in load_file(path).items()}
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        names = content["weight_map"].items()
        content["weight_map"] = {f"{prefix}.{name}": file for name, file in names}
        write_json(index, content)


def portable_tokenizer(
    tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> PreTrainedTokenizerFast:
    """The tokenizer as it is, if a template was built into it, else with the empty template."""
    if TEMPLATE_KEY in tokenizer.init_kwargs:
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        return tokenizer
    return bake_template(tokenizer, PLACEHOLDER, max_length or tokenizer.model_max_length)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write ``tokenizer.json`` and a configuration that transformers 4 and 5 read alike."""
    backend = tokenizer.backend_tokenizer
    # transformers leaves on the backend what the last call asked for.
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / "tokenizer.json"))
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": tokenizer.model_max_length,
            "padding_side": "right",
            "truncation_side": "right",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            **{
                key: tokenizer.init_kwargs[key]
                for key in (TEMPLATE_KEY, NAMED_TEMPLATES_KEY)
                if key in tokenizer.init_kwargs
            },
            **{name: str(token) for name in names if (token := getattr(tokenizer, name))},
        },
    )


def pooling_config(pooling: Pooling) -> dict[str, Any]:
    """A Pooling's configuration with the keys that all releases read."""
    (mode,) = pooling_modes(pooling)
    return {
        "word_embedding_dimension": pooling.get_config_dict().get(
            "embedding_dimension", pooling.get_config_dict().get("word_embedding_dimension")
        ),
        **{key: name == mode for name, key in POOLING_KEYS.items()},
        "include_prompt": pooling.include_prompt,
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON object or list, one entry a line, as UTF-8."""
    if isinstance(content, dict):
        lines = [f"{_dump(key)}: {_dump(value)}" for key, value in content.items()]
        text = "{\n  " + ",\n  ".join(lines) + "\n}\n"
    else:
        text = "[\n  " + ",\n  ".join(_dump(entry) for entry in content) + "\n]\n"
    path.write_text(text, encoding="utf-8")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
