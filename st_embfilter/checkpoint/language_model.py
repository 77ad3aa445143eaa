"""The whole causal language model of a source, with its head, and its tokenizer."""

from typing import Any

import torch
from sentence_transformers.util import get_device_name
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from st_embfilter.checkpoint.backbone import (
    checked_loading,
    dtype_to_load,
    follow_gguf,
    loading_options,
)
from st_embfilter.checkpoint.causal_config import is_multimodal, load_config
from st_embfilter.checkpoint.gguf_file import parsed_once, tokenizer_settings
from st_embfilter.checkpoint.plain_checkpoint import undoing_options
from st_embfilter.checkpoint.source import Source
from st_embfilter.errors import CheckpointError


def load_language_model(
    source: Source, dtype: torch.dtype | str = "auto", device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that predicts the next token, ready for inference.

    Its forward pass gives the logits as the model defines them, scaled and soft-capped ones too. Of
    a multimodal model it is the whole, which takes text alone as well.

    Args:
        source: A causal language model, or a multimodal one with such a model inside.
        dtype: The weights' dtype; ``"auto"`` takes the stored one (float32 for a GGUF file).
        device: As in ``SentenceTransformer``; by default the best there is.

    Raises:
        NoUnembeddingError: If it has no head that predicts the next token.
        CheckpointError: If transformers can't load it, or it has no tokenizer.
    """
    with parsed_once():
        tokenizer = load_tokenizer(source)
        config = None if source.gguf_file else load_config(source)
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


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer as the source has it.

    Raises:
        CheckpointError: If it has none, or one that transformers can't load.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.location, **loading_options(source)
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{source.name} has no tokenizer that transformers can load: {error}"
        ) from error
    if source.gguf_file and source.folder:
        follow_gguf(tokenizer, tokenizer_settings(source.folder / source.gguf_file))
    return tokenizer


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for no context: BOS, or EOS where there is no BOS.

    Raises:
        CheckpointError: If the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise CheckpointError(
        f"{tokenizer.name_or_path}: the tokenizer has neither BOS nor EOS to start from: give it "
        f"texts"
    )
