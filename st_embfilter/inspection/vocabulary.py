"""A model's tokens as a report tells of them."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from st_embfilter.inspection.figures import SetName, Token, TokenKind
from st_embfilter.spectral.lens import frequency_ranks

# What a token that is cut out of a character decodes to.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Shorter ones begin too many words. In UTF-8 bytes: one Chinese character has three.
SHORTEST_OWN = 3


class Vocabulary:
    """The tokens of W_U's rows, with their frequencies.

    Args:
        tokenizer: The model's.
        log_p: ``(V,)``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, log_p: Tensor) -> None:
        self.tokenizer: Any = tokenizer
        self.ranks = frequency_ranks(log_p)
        # Special tokens, and others that were added to what was learnt from text.
        self._special = set(tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)

    def token(self, token_id: int) -> Token:
        """What a row of W_U stands for."""
        rank, kind = int(self.ranks[token_id]), self.kind(token_id)
        if kind == "none":
            return Token(token_id, "", rank, kind)
        text = self.tokenizer.decode([token_id])
        if kind == "special" or REPLACEMENT in text:
            text = self.tokenizer.convert_ids_to_tokens(token_id)
        return Token(token_id, text, rank, kind)

    def kind(self, token_id: int) -> TokenKind:
        """Whether text can hold a token."""
        if self.tokenizer.convert_ids_to_tokens(token_id) is None:
            return "none"
        return "special" if token_id in self._special else "ordinary"

    def sets(self, size: int) -> dict[SetName, Tensor]:
        """The most frequent, the rarest, and random tokens, by their ids.

        Only ordinary ones: no text holds the others.

        Args:
            size: How many of each, if the vocabulary has three times as many.
        """
        by_rank = self.ranks.argsort()
        ordinary = by_rank[[self.kind(i) == "ordinary" for i in by_rank.tolist()]]
        size = min(size, len(ordinary) // 3)
        chosen = torch.randperm(len(ordinary), generator=torch.Generator().manual_seed(0))[:size]
        return {"frequent": ordinary[:size], "rare": ordinary[-size:], "random": ordinary[chosen]}

    def own_share(self, texts: Sequence[str], tokens: Tensor, most_frequent: int) -> float:
        """The share of the texts' top tokens that are the text's own.

        These are the tokens that begin one of its words or tokens, upper or lower case, and are
        neither frequent nor shorter than three bytes.

        Args:
            texts: n texts.
            tokens: ``(n, top)``, of their embeddings.
            most_frequent: How many tokens count as frequent.
        """
        found = 0
        for text, row in zip(texts, tokens.tolist(), strict=True):
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            words = {self.token(i).text.strip().lower() for i in ids}
            words.update(re.findall(r"\w+", text.lower()))
            for token in map(self.token, row):
                letters = token.text.strip().lower()
                found += (
                    token.kind == "ordinary"
                    and token.rank > most_frequent
                    and len(letters.encode()) >= SHORTEST_OWN
                    and any(word.startswith(letters) for word in words)
                )
        return found / tokens.numel()
