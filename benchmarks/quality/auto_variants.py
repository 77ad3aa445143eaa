"""What each part of the band auto is worth: Spearman on three sets.

    python benchmarks/quality/auto_variants.py DIR TEXTS --embeddings OUT/embeddings [--data DATA]

DIR is an artifact that was built with --band edge --ratio 1, TEXTS what everything is fitted on,
OUT what `st-embfilter evaluate` wrote (it keeps the embeddings). The average of STS12, STS14 and
STS16.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
from data_sets import Pairs, read_tasks, scores_by_task, unique_texts
from numpy.typing import NDArray

from st_embfilter.encoding.embedder import Embedder
from st_embfilter.evaluation.evaluated import load_evaluated
from st_embfilter.evaluation.methods import directions
from st_embfilter.spectral import calibration
from st_embfilter.spectral.bands import band_indices
from st_embfilter.spectral.calibration import (
    Principal,
    automatic_filter,
    principal_directions,
    whitening,
)
from st_embfilter.texts import read_sample

TASKS = ("STS12", "STS14", "STS16")
RATIOS = (1, 2, 4, 8)
Array = NDArray[Any]
# From the directions of W_U and a sample to the transform for k dimensions.
Variant = Callable[[Array, Principal, int], Callable[[Array], Array]]


def linear(matrix: Array, shift: Array | float = 0.0) -> Callable[[Array], Array]:
    """``x → (x - shift) matrixᵀ``."""
    return lambda x: (x - shift) @ matrix.T


def edge(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """The paper's."""
    return linear(v[band_indices(len(v), k)])


def earlier(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """The rule until November 2026: squared weights, energies to the power 1/3, 2% of the mean."""
    weighted = calibration.varying_share(v, sample)[:, None] ** 2 * v
    spread = weighted @ sample.directions.T * np.sqrt(sample.variances)
    mean = weighted @ sample.mean
    energies, columns = np.linalg.eigh(spread @ spread.T + 0.02 * np.outer(mean, mean))
    energies = np.maximum(energies[::-1], 0)
    rows = columns.T[::-1] @ weighted / (energies + 0.1 * energies.mean())[:, None] ** (1 / 3)
    return linear(rows[:k])


def auto(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """As it is."""
    return linear(automatic_filter(v, sample)[0][:k])


def changed(**constants: Any) -> Variant:
    """The band auto, some of its constants changed."""

    def variant(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
        with patch.multiple(calibration, **constants):
            return auto(v, sample, k)

    return variant


def unweighted(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """The band auto without its first step: the spectrum is not used."""
    with patch.object(calibration, "varying_share", lambda v, _: np.ones(len(v))):
        return auto(v, sample, k)


def without_mean(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """The band auto, as if the mean were nowhere in its second step."""
    weights = calibration.varying_share(v, sample)
    with patch.object(calibration, "varying_share", lambda *_: weights):
        return auto(v, sample._replace(mean=np.zeros_like(sample.mean)), k)


VARIANTS: dict[str, Variant] = {
    "edge": edge,
    "whitening": lambda v, sample, k: whitening(sample, k).apply,
    "**auto**": auto,
    "auto, the spectrum unused": unweighted,
    "auto, the mean left out of the second step": without_mean,
    "auto, no noise (the second moment whitened)": changed(NOISE=0.0),
    "auto, noise 1/16": changed(NOISE=1 / 16),
    "auto, noise 1/8": changed(NOISE=1 / 8),
    "auto, noise 1/2": changed(NOISE=1 / 2),
    "auto, noise 1": changed(NOISE=1.0),
    "auto, no neighbours": changed(NEIGHBOURS=0.0),
    "auto, twice the neighbours": changed(NEIGHBOURS=1 / 36),
    "auto, not shrunk": changed(chance_share=lambda *_: 0.0),
    "the rule before": earlier,
}
COUNTS = (100, 200, 400, 800)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("fit", type=Path)
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="more to fit auto on")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.data, TASKS)
    texts = unique_texts(tasks)
    evaluated = load_evaluated(arguments.model, device="cpu")
    embedder = Embedder(evaluated.unfiltered(), arguments.embeddings, evaluated.revision)
    raw, fitted_on = embedder(texts), embedder(sorted(set(read_sample(arguments.fit))))
    v = directions(evaluated, "tail", raw.shape[1]).astype(np.float64)

    sizes = [len(v) // ratio for ratio in RATIOS]
    print(
        f"| {len(fitted_on)} texts | {' | '.join(map(str, sizes))} |\n|---|{'---:|' * len(sizes)}"
    )
    sample = principal_directions(fitted_on)
    for name, variant in VARIANTS.items():
        print_row(name, [average(tasks, texts, variant(v, sample, k)(raw)) for k in sizes])
    generator = np.random.default_rng(0)
    order = generator.permutation(len(fitted_on))
    parts = {f"auto, fitted on {n} of them": fitted_on[order[:n]] for n in COUNTS}
    same_kind = raw[generator.permutation(len(raw))[: len(fitted_on)]]
    parts["auto, fitted on as many sentences of the three sets"] = same_kind
    for file in arguments.also:
        other = embedder(sorted(set(read_sample(file))))
        parts[f"auto, fitted on the {len(other)} texts of {file.name}"] = other
    for name, part in parts.items():
        moments = principal_directions(part)
        print_row(name, [average(tasks, texts, auto(v, moments, k)(raw)) for k in sizes])


def average(tasks: dict[str, Pairs], texts: list[str], embeddings: Array) -> float:
    """Of the sets' scores."""
    return scores_by_task(tasks, texts, [embeddings])["average"][0]


def print_row(name: str, scores: list[float]) -> None:
    """A line of the table."""
    print(f"| {name} | {' | '.join(f'{score:.2f}' for score in scores)} |", flush=True)


if __name__ == "__main__":
    main()
