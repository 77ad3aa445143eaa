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
from st_embfilter.choosing.measures import (
    Floats,
    Places,
    pair_shares,
    reciprocal_ranks,
    topic_ranks,
    unit,
)
from st_embfilter.choosing.probes import Pairs, Probes, halves, read_probes
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
    tried: list[Trial] = []
    with TemporaryDirectory() as passing:
        folder = keep or Path(passing)
        for prompted in each_prompt(checkpoint, prompts, dtype, device, folder, say):
            tried += try_bands(prompted, own)
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


def try_bands(prompted: Prompted, own: Pairs) -> Iterator[Trial]:
    """Ask the embeddings of one prompt, in every band.

    Args:
        prompted: The language model with the prompt.
        own: Both halves of texts of the user's, if there are any.
    """
    probes = read_probes()
    asked = list(dict.fromkeys([*probes.texts, *(half for pair in own for half in pair)]))
    raw = prompted.embed(asked, describe=f"{prompted.prompt}: probes")
    for band, ratio, rows in prompted.filters:
        filtered = unit(raw if rows is None else raw @ rows.T)
        items = _ask(dict(zip(asked, filtered, strict=True)), probes, own)
        yield Trial(prompted.prompt, band, filtered.shape[1], ratio, items)


def _own_halves(texts: Sequence[str]) -> Pairs:
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


def _ask(embeddings: dict[str, Floats], probes: Probes, own: Pairs) -> dict[str, Floats]:
    """Each measure's items.

    Args:
        embeddings: Of length 1, by their texts.
        probes: The probes.
        own: Both halves of texts of the user's.
    """
    items = {
        "sentences": [pair_shares(*_both(embeddings, pairs)) for pairs in probes.sentences],
        "topics": [topic_ranks(*_numbered(embeddings, pairs)) for pairs in probes.topics],
        "search": [reciprocal_ranks(*_both(embeddings, pairs)) for pairs in probes.search],
    }
    if own:
        items["yours"] = [pair_shares(*_both(embeddings, own))]
    return {name: np.concatenate(of_sets) for name, of_sets in items.items()}


def _both(embeddings: dict[str, Floats], pairs: Pairs) -> tuple[Floats, Floats]:
    """The embeddings of both sides."""
    first, second = (np.stack([embeddings[pair[side]] for pair in pairs]) for side in (0, 1))
    return first, second


def _numbered(embeddings: dict[str, Floats], pairs: Pairs) -> tuple[Floats, Places]:
    """The embeddings of texts, and the numbers of their topics."""
    names = sorted({topic for _, topic in pairs})
    numbers = np.array([names.index(topic) for _, topic in pairs])
    return np.stack([embeddings[text] for text, _ in pairs]), numbers
