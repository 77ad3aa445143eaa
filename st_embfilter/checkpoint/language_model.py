"""The whole causal language model of a source, with its head, and its tokenizer."""

from typing import Any

import torch
from sentence_transformers.util import get_device_name
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from st_embfilter.checkpoint.backbone import checked_loading, dtype_to_load
from st_embfilter.checkpoint.causal_config import is_multimodal
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.gguf_file import parsed_once
from st_embfilter.checkpoint.plain_checkpoint import undoing_options
from st_embfilter.checkpoint.tokenizer import load_tokenizer, loading_options


def load_language_model(
    checkpoint: Checkpoint, dtype: torch.dtype | str = "auto", device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that predicts the next token, ready for inference.

    Its forward pass gives the logits as the model defines them, scaled and soft-capped ones too. Of
    a multimodal model it is the whole, which takes text alone as well.

    Args:
        checkpoint: A causal language model, or a multimodal one with such a model inside.
        dtype: The weights' dtype; ``"auto"`` takes the stored one (float32 for a GGUF file).
        device: As in ``SentenceTransformer``; by default the best there is.

    Raises:
        NoUnembeddingError: If it has no head that predicts the next token.
        CheckpointError: If transformers can't load it, or it has no tokenizer.
    """
    source = checkpoint.source
    with parsed_once():
        tokenizer, config = load_tokenizer(source), checkpoint.config
        kind: Any = AutoModelForCausalLM
        if config is not None and is_multimodal(config):
            kind = AutoModelForImageTextToText
        with checked_loading(source):
            model: PreTrainedModel = kind.from_pretrained(
                source.location,
                dtype=dtype_to_load(source, dtype),
                **loading_options(source),
                **undoing_options(config),
            )
    placed: Any = model.to(device or get_device_name())  # type: ignore[arg-type]
    return placed.eval(), tokenizer
