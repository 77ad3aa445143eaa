"""The figures of a report, as JSON values: everything that its page and pictures show."""

from dataclasses import dataclass
from typing import Any, Literal

SetName = Literal["frequent", "rare", "random"]
TokenKind = Literal["ordinary", "special", "none"]


@dataclass(frozen=True)
class Change:
    """A figure without the filter and with it."""

    before: float
    after: float


@dataclass(frozen=True)
class Token:
    """A row of W_U.

    Attributes:
        id: Its index.
        text: What it writes, with its space; empty where the tokenizer has no such token.
        rank: Its place among all by frequency, from 1.
        kind: ``ordinary``, ``special`` (of the tokenizer's own, such as BOS), or ``none``: a row
            without a token, which was never trained.
    """

    id: int
    text: str
    rank: int
    kind: TokenKind


@dataclass(frozen=True)
class TopTokens:
    """An embedding's top tokens without the filter and with it, best first."""

    before: list[Token]
    after: list[Token]


@dataclass(frozen=True)
class Sample:
    """A text, and its embedding's top tokens: by logit, and by cosine with the rows of W_U."""

    text: str
    by_logit: TopTokens
    by_cosine: TopTokens


@dataclass(frozen=True)
class Shares:
    """The shares of all texts' top tokens that are frequent, and that are the text's own."""

    frequent: Change
    own: Change


@dataclass(frozen=True)
class Energy:
    """How it is spread over the singular directions; each list sums to 1."""

    average_token: list[float]
    mean_embedding: list[float]
    variance: list[float]


@dataclass(frozen=True)
class Band:
    """Singular directions that are kept, or removed, together."""

    name: str
    indices: list[int]


@dataclass(frozen=True)
class Shift:
    """What removing a band does to the logits of a set of tokens: Δπ, and the mean with its sign.

    Attributes:
        relative: Δπ.
        mean: The mean change.
    """

    relative: float
    mean: float


@dataclass(frozen=True)
class TokenSet:
    """Some tokens, and how their logits depend on the singular directions.

    Attributes:
        name: Which.
        size: How many.
        examples: A few of them.
        mean_logit: Over the texts, without the filter.
        by_direction: Δπ for each direction.
        by_band: For each of the report's bands.
    """

    name: SetName
    size: int
    examples: list[Token]
    mean_logit: float
    by_direction: list[float]
    by_band: list[Shift]


@dataclass(frozen=True)
class Direction:
    """The tokens that a singular direction writes, to both sides."""

    index: int
    singular_value: float
    along: list[Token]
    against: list[Token]


@dataclass(frozen=True)
class Inspection:
    """Every figure of a report.

    Attributes:
        version: Of this package.
        unembedding: What W_U is: source, revision, tensor, dtype, shape, SHA-256.
        prompt: The template of the embeddings; ``None`` for an embedding model.
        distribution: What the frequencies are from.
        texts: How many were embedded.
        singular_values: All, descending.
        band: The filter's name, as ``edge``.
        dimensions: How many numbers it gives.
        weights: By direction: 1 where the filter keeps it, 0 where not; of ``auto`` its weights.
        kept: The directions that the filter keeps, ascending; of ``auto`` the heavier half.
        bands: The kept directions, and the removed ones on both sides of the spectrum's middle.
        energy: Along the directions.
        token_sets: The frequent, the rare, and random tokens.
        top: How many of an embedding's top tokens are looked at.
        most_frequent: How many tokens count as frequent among them.
        by_logit: Shares of the top tokens by logit.
        by_cosine: Shares of the top tokens by cosine.
        samples: The first texts.
        directions: From the beginning, the middle and the end of the spectrum.
        mean_cosine: Of different texts.
        spread: Over how many directions embeddings of length 1 vary, in effect.
        mean_left: What the filter leaves of the energy of the embeddings' mean. (``auto`` scales
            embeddings: compare with ``variance_left``.)
        variance_left: What it leaves of their variance around it.
    """

    version: str
    unembedding: dict[str, Any]
    prompt: str | None
    distribution: str
    texts: int
    singular_values: list[float]
    band: str
    dimensions: int
    weights: list[float]
    kept: list[int]
    bands: list[Band]
    energy: Energy
    token_sets: list[TokenSet]
    top: int
    most_frequent: int
    by_logit: Shares
    by_cosine: Shares
    samples: list[Sample]
    directions: list[Direction]
    mean_cosine: Change
    spread: Change
    mean_left: float
    variance_left: float
