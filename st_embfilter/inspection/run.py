"""From a model's name to the figures of its report."""

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from st_embfilter.checkpoint.language_model import load_language_model
from st_embfilter.checkpoint.tokenizer import load_tokenizer
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.errors import MisuseError
from st_embfilter.inspection.figures import Inspection
from st_embfilter.inspection.measuring import FREQUENT_PART, inspect
from st_embfilter.inspection.subject import Subject
from st_embfilter.inspection.token_distribution import (
    count_tokens,
    next_token_distribution,
    read_table,
    smoothed_log,
)
from st_embfilter.pipeline.automatic import SHIPPED_TEXTS
from st_embfilter.texts import read_sample


def run_inspection(
    subject: Subject,
    *,
    texts: Path | None,
    table: Path | None,
    most_texts: int,
    device: str | None,
    say: Callable[[str], None],
) -> Inspection:
    """Inspect a model. Whatever is wrong with the arguments is found before the model is loaded.

    Args:
        subject: What :func:`find_subject` found.
        texts: UTF-8, one a line; by default those that ``auto`` is calibrated on.
        table: The tokens' frequencies. By default they are counted in ``texts``, or if these aren't
            given, the language model's own.
        most_texts: So many are embedded, the first ones.
        device: As in ``SentenceTransformer``.
        say: Is told of the progress.

    Raises:
        EmbFilterError: One of its kinds.
    """
    chosen = _first_texts(read_sample(texts or SHIPPED_TEXTS), most_texts)
    if len(chosen) < 2:
        raise MisuseError(f"{texts} holds one text: it takes two to compare them")
    tokenizer = load_tokenizer(subject.source)
    log_p, distribution = _find_distribution(subject, tokenizer, texts, table, device, say)
    spectrum = compute_spectrum(subject.unembedding, progress=True)
    say("Loading the model")
    embedder = subject.load_embedder(device)
    say(f"Embedding {len(chosen)} texts. Frequencies: {distribution}")
    return inspect(subject, spectrum, embedder, tokenizer, chosen, log_p, distribution)


def _first_texts(texts: Iterable[str], most: int) -> list[str]:
    found: dict[str, None] = {}
    for text in texts:
        found.setdefault(text)
        if len(found) == most:
            break
    return list(found)


def _find_distribution(
    subject: Subject,
    tokenizer: PreTrainedTokenizerBase,
    texts: Path | None,
    table: Path | None,
    device: str | None,
    say: Callable[[str], None],
) -> tuple[Tensor, str]:
    """How frequent the tokens are, ``(V,)`` logarithms, and what that is from."""
    size = subject.unembedding.shape[0]
    if table is not None:
        return smoothed_log(read_table(table, tokenizer, size)), f"the table {table.name}"
    if texts is None and subject.checkpoint is not None:
        say("Asking the language model for its own frequencies")
        model, _ = load_language_model(subject.checkpoint, device=device)
        return next_token_distribution(model, tokenizer), "the model itself, with no context"
    counted = texts or SHIPPED_TEXTS
    counts = count_tokens(read_sample(counted), tokenizer, size)
    seen = int((counts > 0).sum())
    words = f"{int(counts.sum()):,} tokens counted in {counted.name}, {seen:,} different"
    if seen < size // FREQUENT_PART:
        words += ": too few to tell which are frequent (give more text, or --tokens)"
    return smoothed_log(counts), words
