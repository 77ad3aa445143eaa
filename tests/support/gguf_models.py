"""Tiny random language models as GGUF files, as llama.cpp's converter lays them out."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from support.families import save_tiny

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}


def save_both(family: str, folder: Path) -> Path:
    """A tiny model of a family, as transformers saves it and as a GGUF file beside its folder.

    As in a trained model, what a prompt ends in is in the states of all texts.
    """
    model = save_tiny(family, folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(
                ("o_proj.weight", "down_proj.weight", "post_attention_layernorm.weight")
            ):
                weight *= 0.2
    model.save_pretrained(folder)
    return write_gguf(model, folder.with_suffix(".gguf"), AutoTokenizer.from_pretrained(folder))


def write_gguf(model: PreTrainedModel, path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write a causal language model's weights and settings, in float32, and its tokenizer."""
    config: Any = model.config
    kind = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[kind])
    # transformers 4 has it in the configuration itself.
    rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    head = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        weights = tensor.float().numpy()
        if config.model_type == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            weights = interleaved(weights, heads)
        if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
            weights = weights + 1
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if written and not (written == "output.weight" and config.tie_word_embeddings):
            writer.add_tensor(written, np.ascontiguousarray(weights))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, size: int) -> None:
    """A byte-level one."""
    tokens, merges = tokenizer.get_vocab(), json.loads(tokenizer.backend_tokenizer.to_str())
    names = [name for name, _ in sorted(tokens.items(), key=lambda token: token[1])]
    names += [f"<unused{number}>" for number in range(size - len(names))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    special = set(tokenizer.all_special_tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if name in special else normal for name in names])
    writer.add_token_merges([" ".join(pair) for pair in merges["model"]["merges"]])


def read_gguf(path: Path, config: Any) -> PreTrainedModel:
    """The backbone of a GGUF file that may have more blocks than the configuration says."""
    reader = gguf.GGUFReader(path)
    layers = sum(tensor.name.endswith("attn_norm.weight") for tensor in reader.tensors)
    deeper = type(config)(**{**config.to_dict(), "num_hidden_layers": layers, "layer_types": None})
    model: PreTrainedModel = AutoModel.from_config(deeper).float().eval()
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], layers)
    stored = {
        tensor.name: gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type)
        for tensor in reader.tensors
    }
    weights = {}
    for name in model.state_dict():
        found = stored[names.get_name(f"model.{name}", try_suffixes=(".weight", ".bias"))]
        if config.model_type == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            split = found.reshape(heads, len(found) // heads // 2, 2, found.shape[1])
            found = split.swapaxes(1, 2).reshape(found.shape)
        if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
            found = found - 1
        weights[name] = torch.from_numpy(np.array(found))
    model.load_state_dict(weights)
    return model


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Llama's rows in the order that llama.cpp turns them in."""
    split = weights.reshape(heads, 2, len(weights) // heads // 2, weights.shape[1])
    return split.swapaxes(1, 2).reshape(weights.shape)
