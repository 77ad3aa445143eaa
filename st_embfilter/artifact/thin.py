"""The thin form: the filter and the tokenizer, and a reference to the language model on the hub.

sentence-transformers and transformers load a repository of PEFT's by themselves: base model and
adapter. This one's adapter is a LoRA of rank 1 on one projection, and all zeros: it adds nothing,
bit for bit, but its configuration names the base.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from st_embfilter.checkpoint.causal_config import is_multimodal
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.source import ADAPTER_CONFIG
from st_embfilter.errors import MisuseError
from st_embfilter.hub.download import newest_revision

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def check_base(checkpoint: Checkpoint) -> None:
    """Check that a language model can be referred to.

    Raises:
        MisuseError: If it is not on the hub, not its newest revision there, or if more than the
            backbone would be loaded of it.
        HubError: If the hub can't be asked.
    """
    source = checkpoint.source
    if source.revision is None:
        raise MisuseError(
            f"{source.name} is not a hub repository: the thin form refers to one, which everybody "
            f"can load. Name it by its hub id"
        )
    if source.revision != newest_revision(source.name):
        raise MisuseError(
            f"{source.name}: {source.revision} is not the newest revision, and of a thin artifact "
            f"every loader takes that. Leave out the revision, or build the whole artifact"
        )
    config = checkpoint.config
    if is_multimodal(config) or getattr(config, "quantization_config", None):
        raise MisuseError(
            f"{source.name} is multimodal or quantized: the thin form would load all of it. Build "
            f"the portable form, which holds its text part"
        )


def write_adapter(backbone: PreTrainedModel, checkpoint: Checkpoint, folder: Path) -> None:
    """Write a PEFT adapter of all zeros.

    Args:
        backbone: The loaded language model, without its head.
        checkpoint: Where it is from.
        folder: Where ``adapter_config.json`` and ``adapter_model.safetensors`` go.

    Raises:
        MisuseError: If the base can't be referred to, or isn't loaded in its stored dtype.
    """
    check_base(checkpoint)
    source = checkpoint.source
    stored = getattr(checkpoint.config, "dtype", None) or torch.float32
    if backbone.dtype != stored:
        raise MisuseError(
            f"{source.name} is stored in {stored} and was loaded in {backbone.dtype}: the thin "
            f"form loads it as it is stored. Leave out the dtype"
        )
    name, layer = next(
        (name, layer)
        for name, layer in backbone.named_modules()
        if isinstance(layer, (nn.Linear, Conv1D))
    )
    # GPT-2's Conv1D keeps its matrix the other way round.
    transposed = isinstance(layer, Conv1D)
    rows, columns = reversed(layer.weight.shape) if transposed else layer.weight.shape
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": source.name,
        "revision": source.revision,
        "task_type": "FEATURE_EXTRACTION",
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "target_modules": [name],
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    prefix = f"base_model.model.{name}"
    save_file(
        {
            f"{prefix}.lora_A.weight": torch.zeros(1, columns),
            f"{prefix}.lora_B.weight": torch.zeros(rows, 1),
        },
        folder / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )


def is_thin(folder: Path) -> bool:
    """Whether an artifact is in the thin form."""
    return (folder / ADAPTER_CONFIG).is_file()


def adds_nothing(folder: Path) -> bool:
    """Whether a thin artifact's adapter is all zeros."""
    return not any(tensor.any() for tensor in load_file(folder / ADAPTER_WEIGHTS).values())
