"""How frequent each token of a vocabulary is: log p̂, ``(V,)`` float64, finite.

From texts, from a table, or from what the language model itself says with no context.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_embfilter.checkpoint.tokenizer import start_token
from st_embfilter.errors import TokenTableError

# So many lines are tokenized at once.
BATCH = 1000


def next_token_distribution(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """What the language model expects with no context: after BOS, or EOS where there is no BOS.

    Raises:
        CheckpointError: If the tokenizer has neither.
    """
    start = start_token(tokenizer)
    with torch.no_grad():
        output = model(input_ids=torch.tensor([[start]], device=model.device))
    logits: Tensor = output.logits[0, -1]
    return logits.cpu().double().log_softmax(dim=0)


def count_tokens(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, size: int) -> Tensor:
    """How often each token occurs in texts, without those that the tokenizer puts around a text.

    Args:
        texts: Any number; a batch is held at a time.
        tokenizer: The model's.
        size: V, the number of rows of W_U. Tokens that have no row aren't counted.

    Returns:
        ``(V,)`` float64.
    """
    seen: Counter[int] = Counter()
    remaining = iter(texts)
    while batch := list(islice(remaining, BATCH)):
        encoded: Any = tokenizer(batch, add_special_tokens=False, verbose=False)
        for ids in encoded["input_ids"]:
            seen.update(ids)
    counts = torch.zeros(size, dtype=torch.float64)
    for token, count in seen.items():
        if token < size:
            counts[token] = count
    return counts


def read_table(path: Path, tokenizer: PreTrainedTokenizerBase, size: int) -> Tensor:
    """Token frequencies from a JSON file.

    Args:
        path: An object ``{token: count}``, with the tokens as the vocabulary spells them
            (``"Ġthe"``), or a list of one count for each of the V ids. Shares do as well as counts.
        tokenizer: The model's.
        size: V, the number of rows of W_U.

    Returns:
        ``(V,)`` float64.

    Raises:
        TokenTableError: If it can't be read, isn't such a table, is of another vocabulary, or has
            a count that is negative or not a number.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TokenTableError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TokenTableError(f"{path} is not JSON in UTF-8: {error}") from error
    if not isinstance(table, dict | list):
        raise TokenTableError(f"{path} is neither an object {{token: count}} nor a list of counts")
    values = list(table.values()) if isinstance(table, dict) else table
    for value in values:
        # In Python a truth value is a number, and NaN fails every comparison.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
            raise TokenTableError(f"{path}: {value!r} is not a count: it must be a number, 0 or up")
    if not any(values):
        raise TokenTableError(f"{path} counts no token at all")
    if isinstance(table, list):
        if len(table) != size:
            raise TokenTableError(
                f"{path} has {len(table)} counts, and the model {size} tokens: is it the table of "
                f"another model?"
            )
        return torch.tensor(values, dtype=torch.float64)
    vocabulary = tokenizer.get_vocab()
    unknown = [token for token in table if vocabulary.get(token, size) >= size]
    if unknown:
        raise TokenTableError(
            f"{path}: {len(unknown)} of {len(table)} tokens are not in the model's vocabulary "
            f"(first: {unknown[0]!r}): is it the table of another model?"
        )
    counts = torch.zeros(size, dtype=torch.float64)
    counts[[vocabulary[token] for token in table]] = torch.tensor(values, dtype=torch.float64)
    return counts


def smoothed_log(counts: Tensor) -> Tensor:
    """The logarithm of smoothed frequencies: no token's is minus infinity.

    As Witten and Bell do, tokens that were never seen share between them as many occurrences as
    different tokens were seen, for that often a new one came. The rarest seen token is the unit, so
    shares are smoothed as counts are.

    Args:
        counts: ``(V,)`` float64, not all 0.

    Returns:
        ``(V,)`` float64, of which the exponentials sum to 1.
    """
    seen = counts > 0
    occurrences = counts / counts[seen].min()
    if not seen.all():
        occurrences[~seen] = seen.sum() / (~seen).sum()
    return (occurrences / occurrences.sum()).log()
