"""From a language model to its trials: every prompt, band and number of dimensions."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.choosing.measures import Floats, Places, nearest_topic, reciprocal_ranks, unit
from st_embfilter.choosing.probes import Probes, halves, read_probes
from st_embfilter.choosing.trial import Trial, TriedBand
from st_embfilter.encoding.embedder import Embedder
from st_embfilter.errors import MisuseError, TemplateError
from st_embfilter.files import identity
from st_embfilter.pipeline.automatic import calibration_texts
from st_embfilter.pipeline.choices import BuildChoices
from st_embfilter.pipeline.prompts import Prompts, resolve_prompts
from st_embfilter.pipeline.unfiltered import Backbone, load_for, unfiltered_pipeline
from st_embfilter.spectral.bands import BandChoice, edge_band, kept_dimensions
from st_embfilter.spectral.calibration import automatic_filter, principal_directions

RATIOS = (1, 2, 4, 8)
# Of a user's own: fewer than the first tell too little, and more than the second little more.
FEWEST_TEXTS, MOST_TEXTS = 100, 500


class Prompted(NamedTuple):
    """A language model with one prompt.

    Args:
        prompt: Its name, or the template.
        embed: Gives the raw embeddings of texts.
        filters: Each band at each τ, with its rows ``(k, d)``; None for the raw embedding.
    """

    prompt: str
    embed: Embedder
    filters: list[tuple[TriedBand, int, Floats | None]]


def run_trials(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    *,
    texts: Sequence[str] | None,
    dtype: torch.dtype | str,
    device: str | None,
    keep: Path | None,
    say: Callable[[str], None],
) -> list[Trial]:
    """Try the settings. Whatever is wrong with the arguments is found before the model is loaded.

    Args:
        checkpoint: The language model.
        prompts: Names or templates. One that this model can't have is left out.
        texts: The user's own, or None.
        dtype: The backbone's.
        device: As in ``SentenceTransformer``.
        keep: A folder for the embeddings: with them a run that was stopped goes on.
        say: Is told of the progress.

    Raises:
        MisuseError: If there are too few texts; of its kinds, TemplateError if a prompt is none.
        EmbFilterError: One of its other kinds, if the model can't be loaded.
        NonFiniteError: If an embedding is NaN or infinite.
    """
    own = _own_halves(texts) if texts is not None else []
    probes = read_probes()
    asked = [*probes.texts, *(half for pair in own for half in pair)]
    tried: list[Trial] = []
    with TemporaryDirectory() as passing:
        folder = keep or Path(passing)
        for prompted in each_prompt(checkpoint, prompts, dtype, device, folder, say):
            raw = prompted.embed(asked, describe=f"{prompted.prompt}: probes")
            for band, ratio, rows in prompted.filters:
                filtered = unit(raw if rows is None else raw @ rows.T)
                items = _ask(filtered, probes, len(own))
                tried.append(Trial(prompted.prompt, band, filtered.shape[1], ratio, items))
    if not tried:
        raise MisuseError("none of the prompts can be used with this model")
    return tried


def each_prompt(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    dtype: torch.dtype | str,
    device: str | None,
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[Prompted]:
    """A language model with one prompt after the other; it is loaded once.

    Args and errors are those of :func:`run_trials`; ``folder`` keeps the embeddings.
    """
    resolved = {prompt: resolve_prompts(prompt) for prompt in dict.fromkeys(prompts)}
    ratios = [ratio for ratio in RATIOS if ratio <= checkpoint.unembedding.shape[1]]
    say("Loading the model")
    backbone = load_for(checkpoint, _choices(next(iter(resolved.values())), dtype, device))
    spectrum = compute_spectrum(checkpoint.unembedding, progress=True)
    directions = spectrum.right_singular_vectors.numpy().astype(np.float64)
    calibration = calibration_texts(None).texts
    for prompt, templates in resolved.items():
        try:
            embed = _embedder(backbone, _choices(templates, dtype, device), folder)
        except TemplateError as error:
            say(f"{prompt} is left out: {error}")
            continue
        with closing(embed.store):
            sample = embed(calibration, describe=f"{prompt}: calibration")
            automatic, _ = automatic_filter(directions, principal_directions(sample))
            yield Prompted(prompt, embed, list(_filters(directions, automatic, ratios)))


def _own_halves(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Both halves of a user's texts."""
    found = halves(list(dict.fromkeys(texts)))[:MOST_TEXTS]
    if len(found) < FEWEST_TEXTS:
        raise MisuseError(
            f"of your texts {len(found)} differ and are long enough to be cut in two: it takes "
            f"{FEWEST_TEXTS} to tell settings apart. Give more, or none"
        )
    return found


def _choices(prompts: Prompts, dtype: torch.dtype | str, device: str | None) -> BuildChoices:
    return BuildChoices(BandChoice(), prompts, dtype=dtype, device=device)


def _embedder(backbone: Backbone, choices: BuildChoices, folder: Path) -> Embedder:
    """The raw embeddings of one prompt, kept under a name that no other model or prompt has."""
    source = backbone.checkpoint.source
    place = source.folder and (source.folder / (source.gguf_file or ""))
    told = [source.location, source.revision, place and identity(place), choices.prompts.plain]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    return Embedder(unfiltered_pipeline(backbone, choices), folder, name)


def _filters(
    directions: Floats, automatic: Floats, ratios: Sequence[int]
) -> Iterator[tuple[TriedBand, int, Floats | None]]:
    width = len(directions)
    yield "raw", 1, None
    for ratio in ratios:
        k = kept_dimensions(width, ratio=ratio)
        if ratio > 1:
            yield "edge", ratio, directions[edge_band(width, k)]
        yield "auto", ratio, automatic[:k]


def _ask(embeddings: Floats, probes: Probes, own: int) -> dict[str, Floats]:
    """Each measure's items.

    Args:
        embeddings: Of length 1, of the probes' texts, and the halves of a user's, in turn.
        probes: The probes.
        own: How many texts of the user's there are.
    """
    counts = [len(probes.sentences)] * 2 + [len(probes.topics)] + [len(probes.searches)] * 2
    first, second, topics, queries, passages = _places(counts)
    names = sorted({topic for _, topic in probes.topics})
    numbers = np.array([names.index(topic) for _, topic in probes.topics])
    among = np.arange(sum(counts))
    items = {
        "sentences": np.concatenate(
            [
                reciprocal_ranks(embeddings, first, second, among),
                reciprocal_ranks(embeddings, second, first, among),
            ]
        ),
        "topics": nearest_topic(embeddings[topics], numbers),
        "search": reciprocal_ranks(embeddings, queries, passages, among),
    }
    if own:
        begin, end = (sum(counts) + np.arange(own) * 2 + side for side in (0, 1))
        among = np.concatenate([begin, end])
        items["yours"] = np.concatenate(
            [
                reciprocal_ranks(embeddings, begin, end, among),
                reciprocal_ranks(embeddings, end, begin, among),
            ]
        )
    return items


def _places(counts: Sequence[int]) -> list[Places]:
    """The rows of parts that stand one behind the other."""
    ends = np.cumsum(counts)
    return [np.arange(end - count, end) for count, end in zip(counts, ends, strict=True)]
