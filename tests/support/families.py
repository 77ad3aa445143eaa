"""One tiny random model of each decoder family, as its own configuration class makes it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from support.models import byte_level_tokenizer

TEXTS = ["short", "a text of some more words than the first, to be padded to", "dog " * 150]
SIZES = {"vocab_size": 411, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {
    **SIZES,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
# A head has 12 numbers.
HEADS = {**LLAMA, "head_dim": 12}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GPT = {"vocab_size": 411, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 1024}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
MLA = {
    **LLAMA,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
MAMBA = {"vocab_size": 411, "hidden_size": 48, "num_hidden_layers": 2, "state_size": 8}

# The name that people know, the configuration's class, and its settings.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 2": ("LlamaConfig", LLAMA),
    "Llama 3": ("LlamaConfig", {**LLAMA, "rope_parameters": LLAMA3_ROPE}),
    "Mistral": ("MistralConfig", {**HEADS, "sliding_window": 64}),
    "Ministral": ("MinistralConfig", {**HEADS, "sliding_window": 64}),
    "Ministral 3": ("Ministral3Config", HEADS),
    "Mixtral": ("MixtralConfig", {**HEADS, "num_local_experts": 4}),
    "Qwen2": ("Qwen2Config", {**LLAMA, "tie_word_embeddings": True}),
    "Qwen2-MoE": ("Qwen2MoeConfig", {**LLAMA, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "Qwen3": ("Qwen3Config", {**HEADS, "tie_word_embeddings": True}),
    "Qwen3-MoE": ("Qwen3MoeConfig", {**HEADS, **EXPERTS}),
    "Gemma": ("GemmaConfig", HEADS),
    "Gemma 2": ("Gemma2Config", {**HEADS, "query_pre_attn_scalar": 12, "sliding_window": 64}),
    "Gemma 3": ("Gemma3TextConfig", {**HEADS, "query_pre_attn_scalar": 12, "sliding_window": 64}),
    "Gemma 3, 4B and larger": (
        "Gemma3TextConfig",
        {
            **HEADS,
            "query_pre_attn_scalar": 12,
            "sliding_window": 64,
            "rope_parameters": GEMMA3_ROPE,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "Phi": ("PhiConfig", {**LLAMA, "partial_rotary_factor": 0.5}),
    "Phi-3": ("Phi3Config", {**LLAMA, "pad_token_id": 0}),
    "PhiMoE": ("PhimoeConfig", {**LLAMA, "num_local_experts": 4}),
    "GPT-2": ("GPT2Config", GPT),
    "GPT-Neo": (
        "GPTNeoConfig",
        {
            "vocab_size": 411,
            "hidden_size": 48,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 64,
            "max_position_embeddings": 1024,
        },
    ),
    "GPT-J": ("GPTJConfig", {**GPT, "rotary_dim": 8}),
    "GPT-NeoX, Pythia": ("GPTNeoXConfig", {**LLAMA, "rotary_pct": 0.5}),
    "GPT-BigCode, StarCoder": ("GPTBigCodeConfig", GPT),
    "StarCoder2": ("Starcoder2Config", LLAMA),
    "CodeGen": ("CodeGenConfig", {**GPT, "n_ctx": 1024, "rotary_dim": 8}),
    "OPT": (
        "OPTConfig",
        {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 48, "max_position_embeddings": 1024},
    ),
    "OPT-350m": (
        "OPTConfig",
        {
            **SIZES,
            "ffn_dim": 64,
            "word_embed_proj_dim": 24,
            "do_layer_norm_before": False,
            "max_position_embeddings": 1024,
        },
    ),
    "Bloom": ("BloomConfig", {"vocab_size": 411, "hidden_size": 48, "n_layer": 2, "n_head": 4}),
    "MPT": ("MptConfig", {"vocab_size": 411, "d_model": 48, "n_layers": 2, "n_heads": 4}),
    "Falcon 7B": ("FalconConfig", {**SIZES, "multi_query": True, "parallel_attn": True}),
    "Falcon 40B": (
        "FalconConfig",
        {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "OLMo": ("OlmoConfig", LLAMA),
    "OLMo 2": ("Olmo2Config", LLAMA),
    "OLMo 3": ("Olmo3Config", {**LLAMA, "sliding_window": 64}),
    "OLMoE": ("OlmoeConfig", {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2}),
    "StableLM": ("StableLmConfig", {**LLAMA, "partial_rotary_factor": 0.5}),
    "Granite": ("GraniteConfig", {**LLAMA, "logits_scaling": 8.0, "embedding_multiplier": 12.0}),
    "GraniteMoE": ("GraniteMoeConfig", {**LLAMA, "num_local_experts": 4}),
    "Cohere": ("CohereConfig", {**LLAMA, "logit_scale": 0.25}),
    "Cohere 2": ("Cohere2Config", {**HEADS, "sliding_window": 64}),
    "SmolLM3": ("SmolLM3Config", {**LLAMA, "pad_token_id": 0}),
    "DeepSeek-V2": ("DeepseekV2Config", MLA),
    "DeepSeek-V3": ("DeepseekV3Config", MLA),
    "GLM": ("GlmConfig", {**HEADS, "pad_token_id": 0}),
    "GLM-4": ("Glm4Config", {**HEADS, "pad_token_id": 0}),
    "gpt-oss": ("GptOssConfig", {**HEADS, "num_local_experts": 4, "sliding_window": 64}),
    "EXAONE 4": ("Exaone4Config", {**LLAMA, "sliding_window": 64}),
    "Nemotron": ("NemotronConfig", HEADS),
    "ERNIE 4.5": ("Ernie4_5Config", HEADS),
    "Seed-OSS": ("SeedOssConfig", HEADS),
    "HunYuan": ("HunYuanDenseV1Config", HEADS),
    "Apertus": ("ApertusConfig", LLAMA),
    "LFM2": ("Lfm2Config", {**LLAMA, "full_attn_idxs": [1], "block_auto_adjust_ff_dim": False}),
    "Mamba": ("MambaConfig", MAMBA),
    "Mamba 2": ("Mamba2Config", {**MAMBA, "num_heads": 8, "head_dim": 12, "n_groups": 2}),
    "Llama 4": (
        "Llama4TextConfig",
        {**HEADS, "num_local_experts": 4, "intermediate_size_mlp": 64, "pad_token_id": 0},
    ),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        {
            **HEADS,
            **EXPERTS,
            "num_hidden_layers": 4,
            "shared_expert_intermediate_size": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 12,
            "linear_value_head_dim": 12,
        },
    ),
    "Qwen3.5": (
        "Qwen3_5TextConfig",
        {
            **HEADS,
            "num_hidden_layers": 4,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 12,
            "linear_value_head_dim": 12,
        },
    ),
    "GLM-4.5": (
        "Glm4MoeConfig",
        {**HEADS, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "Falcon-H1": (
        "FalconH1Config",
        {**HEADS, "mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 12, "mamba_d_state": 8},
    ),
    "Jamba": (
        "JambaConfig",
        {
            **LLAMA,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
    ),
    "RecurrentGemma": ("RecurrentGemmaConfig", {**HEADS, "lru_width": 48, "num_hidden_layers": 3}),
    "Granite 4": (
        "GraniteMoeHybridConfig",
        {
            **LLAMA,
            "num_local_experts": 4,
            "shared_intermediate_size": 32,
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 12,
            "mamba_d_state": 8,
        },
    ),
    "Gemma 3n": (
        "Gemma3nTextConfig",
        {
            **HEADS,
            "vocab_size_per_layer_input": 411,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "activation_sparsity_pattern": [0.0, 0.0],
        },
    ),
    "Gemma 4": (
        "Gemma4TextConfig",
        {
            **HEADS,
            "vocab_size_per_layer_input": 411,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
        },
    ),
    "MiniMax": ("MiniMaxConfig", {**HEADS, "num_local_experts": 4, "block_size": 64}),
    "BitNet": ("BitNetConfig", LLAMA),
    "Persimmon": ("PersimmonConfig", LLAMA),
    "Arcee": ("ArceeConfig", LLAMA),
    "Helium": ("HeliumConfig", HEADS),
    "GPT": ("OpenAIGPTConfig", GPT),
    "RWKV": ("RwkvConfig", {"vocab_size": 411, "hidden_size": 48, "num_hidden_layers": 2}),
    "XGLM": (
        "XGLMConfig",
        {
            "vocab_size": 411,
            "d_model": 48,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 64,
            "max_position_embeddings": 1024,
        },
    ),
}


VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_VISION = {
    "depth": 1,
    "embed_dim": 32,
    "hidden_size": 48,
    "num_heads": 2,
    "patch_size": 8,
    "intermediate_size": 32,
    "out_hidden_size": 48,
}
DEEPSTACK_VISION = {**QWEN_VISION, "deepstack_visual_indexes": [0]}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
SIGLIP = {"model_type": "siglip_vision_model", **VISION}
# Models that read images too, with a language model inside.
MULTIMODAL: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2-VL": (
        "Qwen2VLConfig",
        {"text_config": {**LLAMA, "rope_parameters": MROPE}, "vision_config": QWEN_VISION},
    ),
    "Qwen2.5-VL": (
        "Qwen2_5_VLConfig",
        {
            "text_config": {**LLAMA, "rope_parameters": MROPE},
            "vision_config": QWEN_VISION,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen3-VL": (
        "Qwen3VLConfig",
        {
            "text_config": {**HEADS, "rope_parameters": MROPE},
            "vision_config": DEEPSTACK_VISION,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen3-VL-MoE": (
        "Qwen3VLMoeConfig",
        {
            "text_config": {**HEADS, **EXPERTS, "rope_parameters": MROPE},
            "vision_config": DEEPSTACK_VISION,
        },
    ),
    "Qwen3.5, with vision": (
        "Qwen3_5Config",
        {"text_config": FAMILIES["Qwen3.5"][1], "vision_config": DEEPSTACK_VISION},
    ),
    "Gemma 3, with vision": (
        "Gemma3Config",
        {"text_config": FAMILIES["Gemma 3, 4B and larger"][1], "vision_config": VISION},
    ),
    "LLaVA": (
        "LlavaConfig",
        {
            "text_config": {"model_type": "llama", **LLAMA},
            "vision_config": {"model_type": "clip_vision_model", **VISION},
        },
    ),
    "Mistral 3": (
        "Mistral3Config",
        {
            "text_config": {"model_type": "mistral", **HEADS},
            "vision_config": {"model_type": "pixtral", **VISION},
        },
    ),
    "Llama 4, with vision": (
        "Llama4Config",
        {
            "text_config": FAMILIES["Llama 4"][1],
            "vision_config": {**VISION, "vision_output_dim": 48},
        },
    ),
    "SmolVLM": (
        "SmolVLMConfig",
        {
            "text_config": {"model_type": "llama", **LLAMA, "pad_token_id": 0},
            "vision_config": VISION,
        },
    ),
    "InternVL": (
        "InternVLConfig",
        {"text_config": {"model_type": "qwen2", **LLAMA}, "vision_config": VISION},
    ),
}


# Not causal: the prompt is read in both directions.
PALIGEMMA = (
    "PaliGemmaConfig",
    {"text_config": {"model_type": "gemma", **HEADS}, "vision_config": SIGLIP},
)


# Servers' attention has heads of no fewer than 32 numbers: of the widths above, a head's and all.
WIDER = {12: 32, 48: 128}


def save_tiny(family: str, path: Path, *, wide: bool = False) -> PreTrainedModel:
    """Save a tiny model of a family as transformers does, with a byte-level tokenizer.

    Its weights are drawn large, so that texts differ, and its norms' too, so that leaving one out
    or applying one twice shows. ``wide``: heads of 32 numbers.
    """
    multimodal = family in MULTIMODAL
    name, settings = (MULTIMODAL if multimodal else FAMILIES)[family]
    if wide:
        settings = {
            key: WIDER.get(value, value) if isinstance(value, int) else value
            for key, value in settings.items()
        }
    auto_class = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    torch.manual_seed(0)
    config = getattr(transformers, name)(**deepcopy(settings))
    model: PreTrainedModel = auto_class.from_config(config).float().eval()
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
                module.weight.normal_(0, 0.3)
            elif weight is not None and "norm" in type(module).__name__.lower():
                weight += 0.3 * torch.randn_like(weight)
    # In several shards, as the large ones come.
    model.save_pretrained(path, max_shard_size="60KB")
    byte_level_tokenizer().save_pretrained(path)
    return model


def head_inputs(model: PreTrainedModel, batches: list[torch.Tensor]) -> np.ndarray:
    """What W_U is multiplied with at the last token of each text."""
    seen: list[torch.Tensor] = []
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0][0, -1])
    )
    with torch.no_grad():
        for ids in batches:
            model(ids)
    return torch.stack(seen).numpy()
