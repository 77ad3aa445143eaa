"""What is refused before texts are embedded, and after."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import tokenize
from st_embfilter.errors import DataError, NonFiniteError
from st_embfilter.row_blocks import non_finite_rows

Embeddings = NDArray[np.float32]


def check_texts(
    model: SentenceTransformer, texts: Sequence[str], front: str, first: int = 0
) -> None:
    """Refuse what can't be embedded.

    Args:
        model: The model.
        texts: The texts.
        front: What sentence-transformers puts in front of each.
        first: The first one's row, for errors.

    Raises:
        TypeError: If a text is no string.
        DataError: If a text has no token, nor has the prompt: there is nothing to pool.
    """
    blank: dict[str, int] = {}
    for row, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise TypeError(f"texts are strings, not {type(text).__name__}: {text!r}")
        if not text.strip():
            blank.setdefault(text, row)
    for text, row in blank.items():
        mask = tokenize(model, [f"{front}{text}"]).get("attention_mask")
        if mask is not None and not mask.any():
            raise DataError(
                f"the text in row {row} (from 0), {text!r}, has no token, and this model's prompt "
                f"adds none: there is nothing to embed. Leave such texts out"
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
