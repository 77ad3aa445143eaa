"""Encode as sentence-transformers does, and compute once what all texts share.

Every text has the prompt's tokens in front. In a causal language model what they are in each layer
doesn't depend on what follows, so their keys and values are computed once and reused. Texts go
through the backbone in order of their number of tokens, as many at a time as make a certain number
of tokens together, and each text once, however often it is asked for.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from tqdm import tqdm

from st_embfilter._compat import Pooling, Transformer, tokenize
from st_embfilter.checkpoint.causal_config import rope_switch
from st_embfilter.encoding.batches import Tokens, batches, padded, shared_length
from st_embfilter.encoding.checks import (
    Embeddings,
    check_finite,
    check_texts,
    cut_texts,
    room_for_text,
)
from st_embfilter.errors import EmbFilterError

logger = logging.getLogger(__name__)

# A batch has as many tokens as `batch_size` texts of this length: on two cores, 512 tokens stay in
# the caches between a product and the next. GPUs want more, and wait for nothing but the next one.
TOKENS_A_TEXT, TOKENS_A_TEXT_ON_GPU = 16, 256
# On a processor a batch more costs about as much as so many tokens.
SPARE_TOKENS = 32
# Room for a few texts of any length.
TRIED_BATCH = 1 << 20
# So many texts are tokenized and sorted together.
WINDOW = 8192
# How far from sentence-transformers' the embeddings may be, in lengths of these: any of them, and
# most of them. In 16 bits, two batches of other sizes differ by more than a hundredth, and a
# text in some by far more (0.08 for a single word with the prompt cot on SmolLM2, where the one
# with the prefix reused is the nearer to float32).
TOLERANCES = {torch.float32: (1e-4, 1e-4), torch.float64: (1e-4, 1e-4)}
LOW_PRECISION_TOLERANCES = (0.2, 0.05)
# The backbone's inputs that are understood.
UNDERSTOOD = {"input_ids", "attention_mask", "pooled_mask"}

# As sentence-transformers' encode_query and encode_document choose among a model's prompts.
ROLE_PROMPTS = {None: (), "query": ("query",), "document": ("document", "passage", "corpus")}

Role = Literal["query", "document"]


class NotReusableError(EmbFilterError):
    """This model's prefix can't be computed once for all texts."""


class PrefixEncoder:
    """Gives what ``model.encode`` gives, sooner.

    With the first texts it is tried whether it does: where the results are not those of
    ``model.encode``, or the backbone doesn't take keys and values from before, ``model.encode``
    does the work, and a warning says why.

    Args:
        model: Any SentenceTransformer; what pays is a causal backbone with a prompt in front.

    Attributes:
        reason: Why the prefix isn't reused, or ``None``. Known after the first texts.
        cut: How many texts had more tokens than the model's limit leaves, and were cut.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.reason: str | None = None
        self.cut = 0
        self._room = dict[tuple[str, int | None], float]()
        self._tried = set[str]()
        self._switch = rope_switch(getattr(getattr(model[0], "auto_model", None), "config", None))

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        role: Role | None = None,
        show_progress_bar: bool = False,
    ) -> Embeddings:
        """The texts' embeddings, ``(len(texts), dimensions)`` float32.

        Args:
            texts: In the order of the rows.
            batch_size: A forward pass takes as many tokens as so many texts of 16 tokens have; on a
                GPU, of 256.
            normalize_embeddings: Scale every embedding to length 1.
            prompt_name: The model's prompt to use, as ``"query"``.
            prompt: The prompt itself.
            role: As ``model.encode_query`` or ``model.encode_document``.
            show_progress_bar: Show a progress bar on stderr.

        Raises:
            TypeError: If a text is no string.
            MisuseError: If the model's limit leaves no room for text beside the prompt.
            DataError: If a text has no token, nor has the prompt.
            NonFiniteError: If an embedding holds NaN or infinity.
        """
        plain = partial(
            getattr(self.model, f"encode_{role}" if role else "encode"),
            prompt_name=prompt_name,
            prompt=prompt,
        )
        front = self.front(prompt_name, prompt, role)
        check_texts(self.model, texts, front)
        room = self._room_for_text(front)
        different = list(dict.fromkeys(texts))
        if different and not self.reason and front not in self._tried:
            self._tried.add(front)
            self.reason = self._try(different, front, plain)
            if self.reason:
                logger.warning(
                    "The prompt is computed anew with every text, as sentence-transformers does: "
                    "%s",
                    self.reason,
                )
        if self.reason or not different:
            embeddings: Embeddings = plain(
                list(texts),
                batch_size=batch_size,
                normalize_embeddings=normalize_embeddings,
                show_progress_bar=show_progress_bar,
            )
            embeddings = embeddings.astype(np.float32, copy=False)
            check_finite(embeddings, texts)
            self._count_cut(different, texts, room)
            return embeddings
        parts, full = [], list[str]()
        with tqdm(
            total=len(different), desc="Encoding", unit="text", disable=not show_progress_bar
        ) as bar:
            for first in range(0, len(different), WINDOW):
                window = different[first : first + WINDOW]
                rows = self._tokenize([f"{front}{text}" for text in window])
                full += [text for text, row in zip(window, rows, strict=True) if len(row) >= room]
                parts.append(self._encode_window(rows, batch_size, bar))
        vectors = torch.cat(parts)[:, : self.model.truncate_dim]
        if normalize_embeddings:
            vectors = nn.functional.normalize(vectors)
        places = {text: place for place, text in enumerate(different)}
        found: Embeddings = vectors.numpy()
        check_finite(found, different)
        self._count_cut(full, texts, room)
        return found if len(different) == len(texts) else found[[places[text] for text in texts]]

    def front(
        self, prompt_name: str | None, prompt: str | None = None, role: Role | None = None
    ) -> str:
        """The prompt that sentence-transformers would put in front."""
        if prompt is not None:
            return prompt
        prompts = self.model.prompts
        of_role = next((name for name in ROLE_PROMPTS[role] if name in prompts), None)
        name = prompt_name or of_role or self.model.default_prompt_name
        return (prompts.get(name) if name else None) or ""

    def _count_cut(self, different: list[str], texts: Sequence[str], room: float) -> None:
        """Count the texts that were cut, of which some different ones may be."""
        cut = cut_texts(self.model, different, room)
        self.cut += sum(text in cut for text in texts) if cut else 0

    def _room_for_text(self, front: str) -> float:
        key = (front, getattr(self.model, "max_seq_length", None))
        if key not in self._room:
            self._room[key] = room_for_text(self.model, front)
        return self._room[key]

    def _try(self, texts: list[str], front: str, plain: Callable[..., Embeddings]) -> str | None:
        """Why the prefix can't be reused, or None: seen by trying a short and a long text."""
        # Of the first ones only: a million needn't be sorted for this.
        by_length = sorted(texts[:WINDOW], key=len)
        few = [by_length[0], by_length[len(by_length) // 2], by_length[-1]]
        # Alone, where the company of a long text changes the others.
        expected = plain(few, show_progress_bar=False, batch_size=1 if self._switch else len(few))
        check_finite(expected, few)
        try:
            with tqdm(disable=True) as bar:
                # In one batch, as some caches can't be had for several texts.
                tokens = self._tokenize([f"{front}{text}" for text in few])
                found = self._encode_window(tokens, TRIED_BATCH, bar)
        except NotReusableError as error:
            return str(error)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            return f"{type(error).__name__}: {error}"
        rows = found[:, : self.model.truncate_dim].numpy()
        distance = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
        dtype = next(self.model.parameters()).dtype
        of_any, of_most = TOLERANCES.get(dtype, LOW_PRECISION_TOLERANCES)
        if not (distance.max() <= of_any and np.median(distance) <= of_most):
            return f"the embeddings would be other ones (off by {distance.max():.1e})"
        return None

    @torch.inference_mode()
    def _encode_window(self, rows: list[Tokens], batch_size: int, bar: "tqdm[Any]") -> Tensor:
        """The modules' embeddings of different texts, ``(len(rows), dimensions)`` float32."""
        length = shared_length(rows)
        prefix: Any = None
        if length:
            shared = rows[0].ids[None, :length].to(self.model.device)
            prefix = _backbone_of(self.model)(input_ids=shared, use_cache=True)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
        result: Tensor | None = None
        if self.model.device.type == "cpu":
            tokens, spare = batch_size * TOKENS_A_TEXT, SPARE_TOKENS
        else:
            tokens, spare = batch_size * TOKENS_A_TEXT_ON_GPU, None
        # With the prefix in front as it is turned in short texts, longer ones would be wrong.
        beyond = sum(len(rows[row]) > self._switch for row in order) if self._switch else 0
        groups = [(batch, None, 0) for batch in batches(order[:beyond], rows, 0, tokens, spare)]
        rest = batches(order[beyond:], rows, length, tokens, spare)
        for batch, in_front, skipped in [*groups, *((batch, prefix, length) for batch in rest)]:
            embeddings = self._embed([rows[row] for row in batch], in_front, skipped)
            if result is None:
                # A copy from a GPU waits for it: so one for all.
                result = torch.empty(len(rows), embeddings.shape[1], device=embeddings.device)
            result[batch] = embeddings.float()
            bar.update(len(batch))
        assert result is not None
        return result.cpu()

    def _tokenize(self, texts: list[str]) -> list[Tokens]:
        features = tokenize(self.model, texts)
        unknown = features.keys() - UNDERSTOOD
        if not {"input_ids", "attention_mask"} <= features.keys() or any(
            isinstance(features[key], Tensor) for key in unknown
        ):
            raise NotReusableError("its backbone takes more than tokens")
        pooled = features.get("pooled_mask", features["attention_mask"])
        seen = features["attention_mask"].bool()
        lengths = seen.sum(dim=1).tolist()
        rows = (values[seen].split(lengths) for values in (features["input_ids"], pooled))
        return [Tokens(*row) for row in zip(*rows, strict=True)]

    def _embed(self, rows: list[Tokens], prefix: Any, length: int) -> Tensor:
        """The embeddings of some texts, ``(len(rows), dimensions)``."""
        device = self.model.device
        ids = padded([row.ids[length:] for row in rows]).to(device)
        seen = padded([torch.ones_like(row.ids) for row in rows]).to(device)
        keys_and_values = None
        if prefix is not None:
            # The backbone adds to it.
            keys_and_values = copy.deepcopy(prefix.past_key_values)
            keys_and_values.batch_repeat_interleave(len(rows))
        states = _backbone_of(self.model)(
            input_ids=ids,
            attention_mask=seen,
            past_key_values=keys_and_values,
            use_cache=prefix is not None,
        ).last_hidden_state
        if prefix is not None:
            front = prefix.last_hidden_state.expand(len(rows), -1, -1)
            states = torch.cat([front, states], dim=1)
        features: dict[str, Any] = {
            "token_embeddings": states,
            "attention_mask": padded([row.pooled for row in rows]).to(device),
        }
        for module in list(self.model)[1:]:
            features = module(features)
        embeddings: Tensor = features["sentence_embedding"]
        return embeddings


def _backbone_of(model: SentenceTransformer) -> Any:
    """The language model in a pipeline.

    Raises:
        NotReusableError: If the pipeline is of another kind.
    """
    transformer, pooling = model[0], model[1] if len(model) > 1 else None
    if not isinstance(transformer, Transformer) or not isinstance(pooling, Pooling):
        raise NotReusableError("its pipeline doesn't begin with Transformer and Pooling")
    if not getattr(pooling, "include_prompt", True):
        raise NotReusableError("its pooling leaves out the prompt")
    return transformer.auto_model
