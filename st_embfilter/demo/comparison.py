"""What the filter changes: the nearest tokens of texts, and the places of answers in a search."""

from dataclasses import dataclass

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.spectral.lens import nearest_tokens

TOP_TOKENS = 8


@dataclass(frozen=True)
class LensRow:
    """The tokens that a text's embedding lies closest to, before and after the filter."""

    text: str
    raw: list[str]
    filtered: list[str]


@dataclass(frozen=True)
class SearchRow:
    """At which place (from 1) a query finds the document that answers it."""

    query: str
    answer: str
    raw: int
    filtered: int


def compare_tokens(
    raw_model: SentenceTransformer, matrix: Tensor, unembedding: Unembedding, texts: list[str]
) -> list[LensRow]:
    """Read the texts' embeddings through W_U, before and after the filter."""
    raw = raw_model.encode(texts, convert_to_tensor=True)
    before, after = (
        [_decode(raw_model.tokenizer, row) for row in tokens.tolist()]
        for tokens in (
            nearest_tokens(raw, unembedding.row_blocks(), TOP_TOKENS),
            nearest_tokens(raw, unembedding.row_blocks(), TOP_TOKENS, matrix),
        )
    )
    return [LensRow(*row) for row in zip(texts, before, after, strict=True)]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Each token as a person would write it; one that shows nothing, as it is escaped."""
    texts = (str(tokenizer.decode([token])) for token in ids)
    return [text.strip() or repr(text)[1:-1].strip() for text in texts]


def compare_search(
    raw_model: SentenceTransformer,
    filtered_model: SentenceTransformer,
    documents: list[str],
    queries: list[tuple[str, int]],
) -> list[SearchRow]:
    """Search the documents with every query, by cosine."""
    questions = [question for question, _ in queries]
    answers = torch.tensor([answer for _, answer in queries])
    places = []
    for model in (raw_model, filtered_model):
        found = model.encode(questions, convert_to_tensor=True)
        scores = model.similarity(found, model.encode(documents, convert_to_tensor=True))
        right = scores.gather(1, answers[:, None])
        places.append((1 + (scores > right).sum(dim=1)).tolist())
    return [
        SearchRow(question, documents[answer], raw, filtered)
        for (question, answer), raw, filtered in zip(queries, *places, strict=True)
    ]


def mean_reciprocal_rank(places: list[int]) -> float:
    """1 if every answer comes first."""
    return sum(1 / place for place in places) / len(places)
