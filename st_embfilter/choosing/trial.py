"""What was seen of one setting, and which setting to take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from st_embfilter.choosing.measures import Floats

# Raw is all d directions as they are: what `--band edge --ratio 1` builds, turned.
TriedBand = Literal["raw", "edge", "auto"]


@dataclass(frozen=True)
class Trial:
    """One setting on the probes.

    Attributes:
        prompt: A prompt's name, or a template.
        band: What is kept of the raw embeddings.
        dimensions: How many numbers that gives.
        ratio: The filter ratio τ that gives them.
        items: By what is asked of the embeddings (``sentences``, ``topics``, ``search``, and
            ``yours`` with texts of the user's own), each item's share of 1.
    """

    prompt: str
    band: TriedBand
    dimensions: int
    ratio: int
    items: dict[str, Floats]

    @property
    def scores(self) -> dict[str, float]:
        """× 100, by what is asked."""
        return {name: 100 * float(items.mean()) for name, items in self.items.items()}

    @property
    def total(self) -> float:
        """The scores' average."""
        return float(np.mean(list(self.scores.values())))


def standard_error(one: Trial, other: Trial) -> float:
    """Of the difference of two totals, as the items of both are the same ones."""
    variances = [
        (one.items[name] - other.items[name]).var() / len(one.items[name]) for name in one.items
    ]
    return 100 * float(np.sqrt(np.sum(variances))) / len(variances)


def choose(trials: Sequence[Trial]) -> Trial:
    """The setting to build: the best, or one of fewer dimensions that can't be told from it.

    That is one of the same prompt and band, whose total is below the best by no more than the
    :func:`standard_error` of the difference.
    """
    best = max(trials, key=lambda trial: trial.total)
    alike = [
        trial
        for trial in trials
        if (trial.prompt, trial.band) == (best.prompt, best.band)
        and best.total - trial.total <= standard_error(best, trial)
    ]
    return min(alike, key=lambda trial: trial.dimensions)
