"""The few places where the supported sentence-transformers releases (5.1 to 6.x) differ."""

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

LOADING_KWARGS = ("model_kwargs", "processor_kwargs", "config_kwargs")
# The `__module__` for which `SentenceTransformer.save` writes "sentence_transformers.models.Dense".
# Up to 5.3 that is a module, whose name alone is written.
SAVED_DENSE_MODULE = "sentence_transformers.models"
if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
else:
    try:
        from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    except ImportError:
        from sentence_transformers.models import Dense, Pooling, Transformer

        LOADING_KWARGS = ("model_args", "tokenizer_args", "config_args")
        SAVED_DENSE_MODULE = "sentence_transformers.models.Dense"

__all__ = ["Dense", "Pooling", "Transformer"]
TransformerT = TypeVar("TransformerT", bound=Transformer)


def load_backbone(
    transformer_class: type[TransformerT],
    location: str,
    dtype: torch.dtype | str,
    common: dict[str, Any],
) -> TransformerT:
    """sentence-transformers' Transformer of a checkpoint's decoder, without its head.

    Args:
        transformer_class: Transformer, or a class derived from it.
        location: A folder or hub id.
        dtype: The weights' dtype, or ``"auto"`` for the stored one.
        common: What transformers is told for model, tokenizer and configuration alike
            (``revision``, ``gguf_file``).
    """
    model, processor, config = LOADING_KWARGS
    kwargs: dict[str, Any] = {
        model: {"dtype": dtype, **common},
        processor: dict(common),
        config: dict(common),
    }
    transformer: TransformerT = transformer_class(location, **kwargs)
    return transformer


def tokenize(model: SentenceTransformer, texts: list[str]) -> dict[str, Any]:
    """Texts as a model's input, as ``encode`` makes it of them (without a prompt's name)."""
    make = model.preprocess if hasattr(model, "preprocess") else model.tokenize
    return dict(make(texts))


def pooling_modes(pooling: Pooling) -> tuple[str, ...]:
    """The names of a Pooling's modes, as ``("lasttoken",)``."""
    if hasattr(pooling, "get_pooling_mode_str"):
        return tuple(pooling.get_pooling_mode_str().split("+"))
    mode = pooling.pooling_mode
    return (mode,) if isinstance(mode, str) else tuple(mode)


def embedding_dimension(model: SentenceTransformer) -> int | None:
    """How many numbers a model's embeddings have, if it says."""
    get = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    width: int | None = get()
    return width


def set_text_only(transformer: Transformer, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a Transformer its tokenizer, and have it encode plain text.

    From 6.0 on, a Transformer whose tokenizer has a chat template lists the modality "message",
    and then wraps every plain text in that template.
    """
    if hasattr(transformer, "modality_config"):
        transformer.processor = tokenizer
        transformer.modality_config = {"text": transformer.modality_config["text"]}
        transformer.input_formatter.supported_modalities = ["text"]
    else:
        transformer.tokenizer = tokenizer  # type: ignore[misc]
