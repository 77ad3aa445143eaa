"""The text part of a multimodal or quantized model, as a plain checkpoint of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

from st_embfilter.checkpoint.causal_config import is_multimodal
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.tokenizer import TOKENIZER_OPTIONS

# These differ from the plain family only in how images are counted as positions, so on text alone
# they are that family, which older releases and servers know as well.
PLAIN_FAMILIES = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
# Of these the stored numbers are all there is: what is undone is exact.
UNDOING = {"fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config}
IMAGE_ROPE_KEYS = ("mrope_section", "mrope_interleaved")


@contextmanager
def plain_checkpoint(
    checkpoint: Checkpoint, dtype: torch.dtype | str, common: dict[str, Any]
) -> Iterator[str]:
    """A folder or hub id from which the text model alone can be loaded, in plain numbers.

    That is the source itself, unless it is multimodal or of a quantization that transformers can
    undo: then a temporary folder, which holds its text decoder and tokenizer.

    Args:
        checkpoint: A causal language model, or a multimodal one with such a model inside.
        dtype: The weights' dtype, or ``"auto"`` for the stored one.
        common: What transformers is told for model, tokenizer and configuration alike.
    """
    source, config = checkpoint.source, checkpoint.config
    undo = undoing_options(config)
    if config is None or not (is_multimodal(config) or undo):
        yield source.location
        return
    model: Any = AutoModel.from_pretrained(source.location, dtype=dtype, **common, **undo)
    tokenizer: Any = AutoTokenizer.from_pretrained(source.location, **common, **TOKENIZER_OPTIONS)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _plain_copy(_text_decoder(model)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del model
        yield folder


def undoing_options(config: Any) -> dict[str, Any]:
    """What transformers is told so that it undoes a configuration's quantization, where it can."""
    quantization = getattr(config, "quantization_config", None) or {}
    undo = UNDOING.get(str(quantization.get("quant_method")))
    return {"quantization_config": undo(dequantize=True)} if undo else {}


def _text_decoder(model: Any) -> PreTrainedModel:
    """The text decoder inside a model, without a head (Llama 4's has one)."""
    decoder = model.get_decoder()
    bare: PreTrainedModel = decoder.model if decoder.get_output_embeddings() else decoder
    return bare


def _plain_copy(decoder: PreTrainedModel) -> PreTrainedModel:
    """A model of the same weights, to be saved: of the plain family and not quantized."""
    settings = decoder.config.to_dict()
    settings.pop("quantization_config", None)
    model_type = settings.pop("model_type")
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if model_type in PLAIN_FAMILIES:
        for key in IMAGE_ROPE_KEYS:
            rope.pop(key, None)
        # Older files name the way of counting "mrope" here.
        rope.update({key: "default" for key in ("type", "rope_type") if rope.get(key) == "mrope"})
    with torch.device("meta"):
        config = AutoConfig.for_model(PLAIN_FAMILIES.get(model_type, model_type), **settings)
        plain: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    plain.load_state_dict(decoder.state_dict(), assign=True)
    return plain
