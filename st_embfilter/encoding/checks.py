"""What is refused before texts are embedded, and after."""

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from st_embfilter._compat import tokenize
from st_embfilter.errors import DataError, MisuseError, NonFiniteError
from st_embfilter.row_blocks import non_finite_rows

logger = logging.getLogger(__name__)

Embeddings = NDArray[np.float32]

# Some tokenizers say an astronomical number where there is no limit.
MOST_TOKENS = 10**6


def check_texts(
    model: SentenceTransformer,
    texts: Sequence[str],
    front: str,
    where: Callable[[int], str] = "row {} (from 0)".format,
) -> None:
    """Refuse what can't be embedded.

    Args:
        model: The model.
        texts: The texts.
        front: What sentence-transformers puts in front of each.
        where: Says where the text is that has a number in ``texts``, for errors.

    Raises:
        TypeError: If a text is no string.
        DataError: If a text has no token, nor has the prompt: there is nothing to pool.
    """
    blank: dict[str, int] = {}
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts are strings, not {type(text).__name__}: {text!r}")
        if not text.strip():
            blank.setdefault(text, row)
    for text, row in blank.items():
        mask = tokenize(model, [f"{front}{text}"]).get("attention_mask")
        if mask is not None and not mask.any():
            raise DataError(
                f"the text in {where(row)}, {text!r}, has no token, and this model's prompt "
                f"adds none: there is nothing to embed. Leave such texts out"
            )


def room_for_text(model: SentenceTransformer, front: str) -> float:
    """How many tokens of a text the model sees, as its tokenizer counts them; the rest is cut.

    (The tokenizer of portable Echo counts each twice.)

    Args:
        model: The model.
        front: What sentence-transformers puts in front of each text.

    Returns:
        The number; infinity where there is no limit, or the model doesn't tell it.

    Raises:
        MisuseError: If the prompt leaves no room. Tokenizers cut at a limit below the prompt's own
            tokens as if there were none.
    """
    tokenizer, limit = getattr(model, "tokenizer", None), getattr(model, "max_seq_length", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or limit is None or limit > MOST_TOKENS:
        return math.inf
    features = tokenize(model, [front, front + "a " * (limit + 1)])
    empty, full = features["attention_mask"].sum(dim=1).tolist()
    # The exact form of Echo has it, and there the limit is that of the text alone.
    exact_echo = "pooled_mask" in features
    if (not exact_echo and empty >= limit) or full == empty:
        raise MisuseError(
            f"the model's limit of {limit} tokens is filled by the prompt alone: there is no room "
            f"for text. Raise max_seq_length"
        )
    return int(full - empty) // (2 if exact_echo else 1)


def cut_texts(model: SentenceTransformer, texts: Sequence[str], room: float) -> set[str]:
    """Those of some texts that have more tokens than there is :func:`room_for_text`."""
    # A token stands for a byte at least, but that some are counted twice.
    long = [text for text in texts if 2 * len(text.encode("utf-8", "surrogatepass")) > room]
    if not long:
        return set()
    ids = model.tokenizer(long, add_special_tokens=False, verbose=False)["input_ids"]
    return {text for text, row in zip(long, ids, strict=True) if len(row) > room}


def tell_cut(cut: int, texts: int) -> None:
    """Say how many texts were cut, if any were."""
    if cut:
        logger.warning(
            "%s of %s texts were longer than the model's limit in tokens, and were cut: what is "
            "beyond it is not in their embeddings",
            f"{cut:,}",
            f"{texts:,}",
        )


def check_finite(embeddings: Embeddings, texts: Sequence[str]) -> None:
    """Refuse embeddings that say nothing.

    Args:
        embeddings: ``(len(texts), dimensions)``.
        texts: Theirs.

    Raises:
        NonFiniteError: If one holds NaN or infinity.
    """
    bad = non_finite_rows(embeddings)
    if len(bad):
        raise NonFiniteError(
            f"the model's embedding of {texts[bad[0]][:80]!r} holds NaN or infinity (as do "
            f"{len(bad) - 1:,} more of {len(texts):,}): in float16 large activations overflow, "
            f"bfloat16 and float32 hold them (--dtype)"
        )
