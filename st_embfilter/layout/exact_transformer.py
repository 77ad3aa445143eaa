"""The exact form's input module: the whole prompt is one string before it is tokenized.

This file is complete in itself: the exact form's repository carries a copy of it, which
``SentenceTransformer(..., trust_remote_code=True)`` runs where st-embfilter is not installed.

It does what the paper's reference implementation does (arXiv 2606.07502), token by token:

* A template with one ``{text}`` (PromptEOL) is filled in, tokenized as a whole, and cut to the
  first half and the last half of the limit.
* A template with two (Echo) is tokenized in pieces; of the text alone the first tokens up to the
  limit are kept. What is pooled is the second copy and the closing EOS token.
"""

from collections.abc import Sequence
from typing import Any

import torch

try:
    from sentence_transformers.sentence_transformer.modules import Transformer
except ImportError:  # before 5.4
    from sentence_transformers.models import Transformer  # type: ignore

PLACEHOLDER = "{text}"
# Where the tokenizer's configuration keeps the template of plain texts, and those of named prompts.
TEMPLATE_KEY = "embfilter_template"
NAMED_TEMPLATES_KEY = "embfilter_named_templates"


class ExactTransformer(Transformer):
    """sentence-transformers' Transformer, with the reference's way from a text to its tokens.

    A prompt of the model (``encode_query``, ``prompt_name``) is a whole template here.
    """

    def preprocess(  # type: ignore[override]
        self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Tokenize texts, each in its template.

        Args:
            inputs: The texts.
            prompt: One of the model's prompts, or what to put in front of every text.
            kwargs: Not used.

        Returns:
            ``input_ids`` and ``attention_mask``, ``(batch, tokens)`` int64, padded on the right;
            with Echo also ``pooled_mask``, which marks what is pooled.

        Raises:
            TypeError: If an input is not a string.
        """
        tokenizer: Any = self.tokenizer
        settings = tokenizer.init_kwargs
        # The longest first: one may begin with another.
        named = sorted(settings.get(NAMED_TEMPLATES_KEY, {}).values(), key=len, reverse=True)
        rows = []
        for text in inputs:
            if not isinstance(text, str):
                raise TypeError(f"the exact form embeds strings, not {type(text).__name__}")
            # Releases before 5.4 hand over prompt and text in one, so this does too.
            whole = (prompt or "") + text
            template = next((t for t in named if whole.startswith(t)), "")
            rows.append(self.render(template or settings[TEMPLATE_KEY], whole[len(template) :]))
        return pad(rows, tokenizer.pad_token_id)

    def tokenize(self, texts: Sequence[str], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What releases before 5.4 call :meth:`preprocess`."""
        return self.preprocess(texts)

    def render(self, template: str, text: str) -> tuple[list[int], int]:
        """The ids of a text in its template, and how many at the end are pooled (0: as Pooling)."""
        tokenizer: Any = self.tokenizer
        limit = int(self.max_seq_length or tokenizer.model_max_length)
        pieces = template.split(PLACEHOLDER)
        if len(pieces) == 2:
            ids = tokenizer(text.join(pieces), verbose=False)["input_ids"]
            if len(ids) > limit:
                ids = ids[: limit // 2] + ids[-(limit - limit // 2) :]
            return ids, 0
        front, middle = (tokenizer(piece)["input_ids"] for piece in pieces[:2])
        copy = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        bos = tokenizer.bos_token_id
        opening = tokenizer.eos_token_id if bos is None else bos
        closing = tokenizer.eos_token_id
        return [opening, *front, *copy, *middle, *copy, closing], len(copy) + 1

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the backbone; with Echo, leave only the second copy and EOS to the Pooling."""
        pooled_mask = features.pop("pooled_mask", None)
        features = super().forward(features, **kwargs)
        if pooled_mask is not None:
            features["attention_mask"] = pooled_mask
        return features


def pad(rows: list[tuple[list[int], int]], pad_token_id: int) -> dict[str, Any]:
    """A batch of token ids and of how many at each end are pooled, padded on the right."""
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), width), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    pooled_mask = torch.zeros_like(input_ids)
    for row, (ids, pooled) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        pooled_mask[row, len(ids) - pooled : len(ids)] = 1
    features = {"input_ids": input_ids, "attention_mask": attention_mask}
    return {**features, "pooled_mask": pooled_mask} if any(p for _, p in rows) else features
