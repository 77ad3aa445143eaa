"""Where the supported releases of sentence-transformers and huggingface_hub differ."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # these are not listed
    get_session,
    hf_raise_for_status,
)
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
    of_tokenizer: dict[str, Any],
) -> TransformerT:
    """sentence-transformers' Transformer of a checkpoint's decoder, without its head.

    Args:
        transformer_class: Transformer, or a class derived from it.
        location: A folder or hub id.
        dtype: The weights' dtype, or ``"auto"`` for the stored one.
        common: What transformers is told for model, tokenizer and configuration alike
            (``revision``, ``gguf_file``).
        of_tokenizer: What it is told for the tokenizer alone.
    """
    model, processor, config = LOADING_KWARGS
    kwargs: dict[str, Any] = {
        model: {"dtype": dtype, **common},
        processor: {**common, **of_tokenizer},
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


@contextmanager
def stream_response(url: str, headers: dict[str, str]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """A GET request's status, and its body in pieces as they come, in a ``with`` block.

    huggingface_hub speaks through requests before 1.0, and through httpx from then on.

    Raises:
        HTTPError: If the server refuses it.
        OSError: If it can't be reached.
    """
    session: Any = get_session()
    if callable(session.stream):  # Of requests it is a setting.
        with session.stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_bytes()
    else:
        with session.get(url, headers=headers, stream=True, timeout=10) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_content(1 << 16)
