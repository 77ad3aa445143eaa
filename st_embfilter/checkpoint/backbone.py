"""The backbone of a source, and its tokenizer."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase

from st_embfilter._compat import TransformerT, load_backbone
from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.plain_checkpoint import plain_checkpoint
from st_embfilter.checkpoint.source import Source
from st_embfilter.checkpoint.tokenizer import TOKENIZER_OPTIONS, follow_gguf, loading_options
from st_embfilter.errors import CheckpointError

# How transformers 5 and 4 say that a weight is not in the checkpoint.
MISSING_WEIGHT = re.compile(r"^(\S+) +\| MISSING|newly initialized: \[([^\],]+)", re.MULTILINE)


def load_transformer(
    checkpoint: Checkpoint, transformer_class: type[TransformerT], dtype: torch.dtype | str
) -> tuple[TransformerT, PreTrainedTokenizerBase]:
    """The backbone, and the tokenizer as the checkpoint has it.

    Raises:
        CheckpointError: If transformers can't load it.
    """
    source = checkpoint.source
    common, dtype = loading_options(source), dtype_to_load(source, dtype)
    with checked_loading(source), plain_checkpoint(checkpoint, dtype, common) as location:
        if location != source.location:
            common = {"trust_remote_code": False}  # A folder has no revision.
        transformer = load_backbone(transformer_class, location, dtype, common, TOKENIZER_OPTIONS)
    tokenizer = transformer.tokenizer
    if tokenizer is None:
        raise CheckpointError(f"{source.name} has no tokenizer")
    if source.gguf_file:
        _forget_quantization(transformer.auto_model)
    follow_gguf(tokenizer, source)
    return transformer, tokenizer


def dtype_to_load(source: Source, dtype: torch.dtype | str) -> torch.dtype | str:
    """A dtype as it was asked for; a GGUF file has none that transformers could take as stored."""
    return torch.float32 if source.gguf_file and dtype == "auto" else dtype


@contextmanager
def checked_loading(source: Source) -> Iterator[None]:
    """Make one error of all that goes wrong when transformers loads a source inside the ``with``.

    Raises:
        CheckpointError: If transformers can't load it, or would draw some of its weights at random.
    """
    if TRANSFORMERS_MAJOR < 5 and not source.gguf_file:
        _refuse_rope_of_transformers_5(source)
    try:
        with _watch_missing_weights() as missing:
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(f"{source.name} can't be loaded: {error}") from error
    if missing:
        raise CheckpointError(
            f"{source.name} lacks weights of its model, and transformers would draw them at random "
            f"({missing[0]}): is it whole, and of a quantization that transformers knows? (Before "
            f"5, transformers can't load Gemma 3 and 3n without their head: upgrade it)"
        )


def _refuse_rope_of_transformers_5(source: Source) -> None:
    """Raise :class:`CheckpointError` for rotary settings that transformers 4 would leave unread."""
    content = source.read_json("config.json")
    for part in (content, content.get("text_config") or {}):
        if part.get("rope_parameters") and "rope_theta" not in part:
            raise CheckpointError(
                f"{source.name} was saved by transformers 5, whose rotary settings the release "
                f"installed here ({transformers.__version__}) does not read: upgrade it"
            )


@contextmanager
def _watch_missing_weights() -> Iterator[list[str]]:
    """Collect the names of weights that aren't in a checkpoint: of these there is only a log."""
    missing: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = MISSING_WEIGHT.finditer(record.getMessage())
            missing.extend(match[1] or match[2] for match in found)

    log, handler = logging.getLogger("transformers.modeling_utils"), Collector()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING)  # A user may have asked for less.
    try:
        yield missing
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _forget_quantization(backbone: Any) -> None:
    """A model read from GGUF is dequantized, but still marked as quantized and won't be saved."""
    backbone.hf_quantizer = None
    backbone.is_quantized = False
    if hasattr(backbone.config, "quantization_config"):
        del backbone.config.quantization_config
