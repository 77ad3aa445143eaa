"""Computes every figure of a report."""

from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from st_embfilter._version import __version__
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.errors import WidthError
from st_embfilter.inspection.figures import (
    Band,
    Change,
    Direction,
    Energy,
    Inspection,
    Sample,
    Shares,
    Shift,
    TokenSet,
    TopTokens,
)
from st_embfilter.inspection.subject import Subject
from st_embfilter.inspection.vocabulary import Vocabulary
from st_embfilter.pipeline.automatic import calibration_texts, fit_filter
from st_embfilter.spectral.bands import AUTO, BandChoice
from st_embfilter.spectral.lens import direction_tokens, frequent_share, logit_lens, nearest_tokens
from st_embfilter.spectral.spectroscopy import (
    average_token,
    band_shift,
    energy,
    gather_rows,
    logit_shift,
)
from st_embfilter.spectral.spectrum import Spectrum

# Of an embedding's top tokens.
TOP = 10
# One token in so many is frequent.
FREQUENT_PART = 50
# The paper's V+, and as many rare and random tokens.
SET_SIZE = 100
SAMPLES = EXAMPLES = 6
DIRECTION_TOKENS = 8


def inspect(
    subject: Subject,
    spectrum: Spectrum,
    embedder: SentenceTransformer,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    log_p: Tensor,
    distribution: str,
) -> Inspection:
    """Compute every figure.

    Args:
        subject: What is inspected.
        spectrum: Its spectrum.
        embedder: Gives its unfiltered embeddings.
        tokenizer: The model's.
        texts: Two or more, all different.
        log_p: How frequent its tokens are, ``(V,)``.
        distribution: What ``log_p`` is from, in words.

    Raises:
        WidthError: If the embeddings aren't in the space of W_U.
    """
    unembedding = subject.unembedding
    height, width = unembedding.shape
    embeddings = torch.from_numpy(PrefixEncoder(embedder).encode(texts, show_progress_bar=True))
    if embeddings.shape[1] != width:
        raise WidthError(
            f"{subject.source.name} gives embeddings of {embeddings.shape[1]} numbers, and its "
            f"word embeddings have {width}: they can't be read through these"
        )
    matrix, weights, kept = _take_filter(subject.choice, spectrum, embedder)
    filtered = embeddings @ matrix.T
    vocabulary = Vocabulary(tokenizer, log_p)
    by_logit = (
        logit_lens(embeddings, unembedding.row_blocks(), TOP).tokens,
        logit_lens(embeddings, unembedding.row_blocks(), TOP, matrix).tokens,
    )
    by_cosine = (
        nearest_tokens(embeddings, unembedding.row_blocks(), TOP),
        nearest_tokens(embeddings, unembedding.row_blocks(), TOP, matrix),
    )
    most_frequent = max(1, height // FREQUENT_PART)
    mean = embeddings.mean(dim=0, keepdim=True)
    average = average_token(spectrum, unembedding.row_blocks(), log_p)
    bands = _split_bands(width, kept)
    return Inspection(
        version=__version__,
        unembedding=unembedding.provenance(),
        prompt=subject.prompt,
        distribution=distribution,
        texts=len(texts),
        singular_values=spectrum.singular_values.tolist(),
        band=subject.choice.band if isinstance(subject.choice.band, str) else "indices",
        dimensions=len(matrix),
        weights=weights,
        kept=kept,
        bands=bands,
        energy=Energy(
            average_token=energy(average[None], spectrum).tolist(),
            mean_embedding=energy(mean, spectrum).tolist(),
            variance=energy(embeddings - mean, spectrum).tolist(),
        ),
        token_sets=_measure_sets(unembedding, spectrum, embeddings, vocabulary, bands),
        top=TOP,
        most_frequent=most_frequent,
        by_logit=_measure_shares(vocabulary, texts, by_logit, most_frequent),
        by_cosine=_measure_shares(vocabulary, texts, by_cosine, most_frequent),
        samples=[
            Sample(
                text,
                _top_tokens(vocabulary, by_logit, index),
                _top_tokens(vocabulary, by_cosine, index),
            )
            for index, text in enumerate(texts[:SAMPLES])
        ],
        directions=_measure_directions(unembedding, spectrum, vocabulary),
        mean_cosine=Change(_mean_cosine(embeddings), _mean_cosine(filtered)),
        spread=Change(_spread(embeddings), _spread(filtered)),
        mean_left=float(filtered.mean(dim=0).square().sum() / mean.square().sum()),
        variance_left=float(filtered.var(dim=0).sum() / embeddings.var(dim=0).sum()),
    )


def _take_filter(
    choice: BandChoice, spectrum: Spectrum, embedder: SentenceTransformer
) -> tuple[Tensor, list[float], list[int]]:
    """The filter's matrix, the directions' weights, and those that count as kept."""
    if choice.band == AUTO:
        module = fit_filter(embedder, spectrum, calibration_texts(None), choice, progress=True)
        weights = torch.tensor(module.provenance["weights"])
        heavier = weights.argsort(descending=True)[: spectrum.width // 2]
        return module.linear.weight.data, weights.tolist(), sorted(heavier.tolist())
    kept = sorted(choice.indices(spectrum.width))
    weights = torch.zeros(spectrum.width)
    weights[kept] = 1
    return spectrum.rows(kept), weights.tolist(), kept


def _split_bands(width: int, kept: Sequence[int]) -> list[Band]:
    """The kept directions, between the removed ones of the spectrum's first and second half."""
    removed = sorted(set(range(width)) - set(kept))
    bands = [
        Band("head end", [index for index in removed if index < width // 2]),
        Band("kept", list(kept)),
        Band("tail end", [index for index in removed if index >= width // 2]),
    ]
    return [band for band in bands if band.indices]


def _measure_sets(
    unembedding: Unembedding,
    spectrum: Spectrum,
    embeddings: Tensor,
    vocabulary: Vocabulary,
    bands: Sequence[Band],
) -> list[TokenSet]:
    """How the logits of frequent, rare and random tokens depend on directions and bands."""
    sets = vocabulary.sets(SET_SIZE)
    rows = gather_rows(unembedding.row_blocks(), torch.cat(list(sets.values()))).chunk(len(sets))
    vectors = spectrum.right_singular_vectors
    return [
        TokenSet(
            name=name,
            size=len(ids),
            examples=[vocabulary.token(token) for token in ids[:EXAMPLES].tolist()],
            mean_logit=float((embeddings @ own.T).mean()),
            by_direction=logit_shift(embeddings, own, spectrum).tolist(),
            by_band=[Shift(*band_shift(embeddings, own, vectors[band.indices])) for band in bands],
        )
        for (name, ids), own in zip(sets.items(), rows, strict=True)
    ]


def _measure_shares(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    tokens: tuple[Tensor, Tensor],
    most_frequent: int,
) -> Shares:
    """The shares of frequent tokens and of the texts' own, among top tokens before and after."""
    return Shares(
        frequent=Change(
            *(float(frequent_share(top, vocabulary.ranks, most_frequent).mean()) for top in tokens)
        ),
        own=Change(*(vocabulary.own_share(texts, top, most_frequent) for top in tokens)),
    )


def _top_tokens(vocabulary: Vocabulary, tokens: tuple[Tensor, Tensor], index: int) -> TopTokens:
    return TopTokens(
        *([vocabulary.token(token) for token in top[index].tolist()] for top in tokens)
    )


def _measure_directions(
    unembedding: Unembedding, spectrum: Spectrum, vocabulary: Vocabulary
) -> list[Direction]:
    """What the first, the middle and the last directions write."""
    width = spectrum.width
    middle = width // 2
    chosen = sorted({0, 1, 2, middle - 1, middle, width - 3, width - 2, width - 1})
    along, against = direction_tokens(
        spectrum.rows(chosen), unembedding.row_blocks(), DIRECTION_TOKENS
    )
    return [
        Direction(
            index,
            float(spectrum.singular_values[index]),
            [vocabulary.token(token) for token in along.tokens[row].tolist()],
            [vocabulary.token(token) for token in against.tokens[row].tolist()],
        )
        for row, index in enumerate(chosen)
    ]


def _spread(embeddings: Tensor) -> float:
    """Over how many directions the unit vectors of embeddings ``(n, d)`` vary, in effect.

    The participation ratio of the variances ``λ`` along their principal directions,
    ``(Σ λ)² / Σ λ²``.
    """
    units = normalize(embeddings.double(), dim=1)
    covariance = torch.cov(units.T)
    return float(covariance.trace() ** 2 / covariance.square().sum())


def _mean_cosine(embeddings: Tensor) -> float:
    """The mean cosine of all pairs of different texts' embeddings ``(n, d)``."""
    number = len(embeddings)
    whole = normalize(embeddings.double(), dim=1).sum(dim=0).square().sum()
    return float((whole - number) / (number * (number - 1)))
