"""Which of a checkpoint's tensors W_U is, by their names."""

from typing import Any

from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR, is_multimodal
from st_embfilter.errors import NoUnembeddingError

# What the families call the matrix, as the end of the tensor's full name, or as the whole of it
# where layers have such a tensor too.
HEAD_NAMES = ("lm_head.weight", "embed_out.weight")
WHOLE_HEAD_NAMES = ("output.weight", "head.weight")
EMBEDDING_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "tokens_embed.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "embeddings.weight",
)


def find_head(source: str, names: list[str], config: Any) -> str:
    """W_U's name: the head's, or where it is tied the input embedding's.

    Args:
        source: What the user named, for errors.
        names: Of all tensors in the checkpoint.
        config: The causal language model's configuration.

    Raises:
        NoUnembeddingError: If there is no such matrix, or more than one.
    """
    tied, stored_head_counts = _is_tied(config)
    preferred = [HEAD_NAMES, EMBEDDING_NAMES]
    if not stored_head_counts:
        preferred.reverse()
    for endings in preferred if tied else [HEAD_NAMES]:
        whole = endings + WHOLE_HEAD_NAMES if endings == HEAD_NAMES else endings
        found = _only(source, names, endings, whole)
        if found:
            return found
    raise NoUnembeddingError(
        f"{source} holds no unembedding matrix ({'tied' if tied else 'untied'} head, looked for "
        f"{', '.join(HEAD_NAMES + WHOLE_HEAD_NAMES + EMBEDDING_NAMES * tied)}): is it a backbone "
        f"saved without its head?"
    )


def find_word_embeddings(source: str, names: list[str]) -> str:
    """The name of the matrix that turns tokens into a model's input.

    Raises:
        NoUnembeddingError: If there is no such matrix, or more than one.
    """
    found = _only(source, names, EMBEDDING_NAMES, EMBEDDING_NAMES)
    if found is None:
        raise NoUnembeddingError(
            f"{source} holds no word embeddings (looked for {', '.join(EMBEDDING_NAMES)})"
        )
    return found


def _is_tied(config: Any) -> tuple[bool, bool]:
    """Whether the head is the input embedding, and whether a stored head counts all the same."""
    # Not every configuration has the field.
    tied = bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
    if is_multimodal(config):
        # The whole and its text part may say different things, and either may be left as it was.
        return True, True
    # A tied head may be stored as well. If it differs, transformers takes it from 5.0 on.
    return tied, TRANSFORMERS_MAJOR >= 5


def _only(
    source: str, names: list[str], endings: tuple[str, ...], whole: tuple[str, ...]
) -> str | None:
    """The one tensor whose whole name, or else the end of it, is one of those given."""
    nested = tuple(f".{ending}" for ending in endings)
    found = [n for n in names if n in whole] or [n for n in names if n.endswith(nested)]
    if len(found) > 1:
        raise NoUnembeddingError(
            f"{source} has more than one matrix that may be W_U: {', '.join(sorted(found))}"
        )
    return found[0] if found else None
