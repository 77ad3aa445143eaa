"""What was tried for the band auto, and how its constants were chosen: Spearman on three sets.

    python benchmarks/quality/auto_variants.py DIR own.txt --embeddings OUT/embeddings [--data DATA]

DIR is an artifact that was built with --ratio 1, own.txt what everything is fitted on, OUT what
`st-embfilter evaluate` wrote (it keeps the embeddings). The average of STS12, STS14 and STS16.
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

from st_embfilter.evaluation.embedder import Embedder, load_evaluated
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

TUNED_ON = ("STS12", "STS14", "STS16")
SIZES = (288, 144, 72, 36)
Array = NDArray[Any]
# From the directions of W_U and a sample to the transform for k dimensions.
Variant = Callable[[Array, Principal, int], Callable[[Array], Array]]


def linear(matrix: Array, shift: Array | float = 0.0) -> Callable[[Array], Array]:
    """``x → (x - shift) matrixᵀ``."""
    return lambda x: (x - shift) @ matrix.T


def edge(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """The paper's."""
    return linear(v[band_indices(len(v), k)])


def less_mean(share: float) -> Variant:
    """Subtract a share of the sample's mean, which takes a bias."""
    return lambda v, sample, k: linear(v[band_indices(len(v), k)], share * sample.mean)


def without_mean_direction(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """Remove the direction of the mean, then both ends."""
    unit = sample.mean / np.linalg.norm(sample.mean)
    return linear(v[band_indices(len(v), k)] @ (np.eye(len(v)) - np.outer(unit, unit)))


def principal_in_band(part: float, power: float) -> Variant:
    """Principal directions inside the middle of the spectrum, scaled by a power of variance."""

    def variant(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
        band = v[band_indices(len(v), max(k, int(part * len(v))))]
        spread = band @ sample.directions.T * np.sqrt(sample.variances)
        variances, columns = np.linalg.eigh(spread @ spread.T)
        kept, rows = variances[::-1][:k], columns.T[::-1][:k]
        return linear(rows / kept[:, None] ** power @ band, 0.5 * sample.mean)

    return variant


def auto(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
    """As it is."""
    return linear(automatic_filter(v, sample)[0][:k])


def changed(**constants: Any) -> Variant:
    """The band auto, some of its constants changed."""

    def variant(v: Array, sample: Principal, k: int) -> Callable[[Array], Array]:
        with patch.multiple(calibration, **constants):
            return auto(v, sample, k)

    return variant


VARIANTS: dict[str, Variant] = {
    "edge": edge,
    "edge, the mean's direction removed": without_mean_direction,
    "edge, half of the mean subtracted": less_mean(0.5),
    "edge, the mean subtracted": less_mean(1.0),
    "edge, half of the mean subtracted, whitened, power 1/4": principal_in_band(0.0, 0.25),
    "the same inside the middle half": principal_in_band(0.5, 0.25),
    "the same inside the middle three quarters": principal_in_band(0.75, 0.25),
    "whitening": lambda v, sample, k: whitening(sample, k).apply,
    "**auto**": auto,
    "auto, no weights (sharpness 0)": changed(SHARPNESS=0),
    "auto, sharpness 1": changed(SHARPNESS=1),
    "auto, sharpness 3": changed(SHARPNESS=3),
    "auto, no neighbours": changed(NEIGHBOURS=0.0),
    "auto, twice the neighbours": changed(NEIGHBOURS=1 / 36),
    "auto, the mean not counted": changed(MEAN_SHARE=0.0),
    "auto, a tenth of the mean": changed(MEAN_SHARE=0.1),
    "auto, all of the mean": changed(MEAN_SHARE=1.0),
    "auto, power 0 (not equalized)": changed(EQUALIZING=0.0),
    "auto, power 1/4": changed(EQUALIZING=0.25),
    "auto, power 1/2": changed(EQUALIZING=0.5),
}
COUNTS = (50, 100, 200, 400, 800)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("fit", type=Path)
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.data, TUNED_ON)
    texts = unique_texts(tasks)
    evaluated = load_evaluated(arguments.model, device="cpu")
    embedder = Embedder(evaluated.unfiltered(), arguments.embeddings, evaluated.revision)
    raw, fitted_on = embedder(texts), embedder(sorted(set(read_sample(arguments.fit))))
    v = directions(evaluated, "tail", raw.shape[1]).astype(np.float64)

    print(
        f"| {len(fitted_on)} texts | {' | '.join(map(str, SIZES))} |\n|---|{'---:|' * len(SIZES)}"
    )
    sample = principal_directions(fitted_on)
    for name, variant in VARIANTS.items():
        print_row(name, [average(tasks, texts, variant(v, sample, k)(raw)) for k in SIZES])
    order = np.random.default_rng(0).permutation(len(fitted_on))
    for count in (count for count in COUNTS if count < len(fitted_on)):
        part = principal_directions(fitted_on[order[:count]])
        row = [average(tasks, texts, auto(v, part, k)(raw)) for k in SIZES]
        print_row(f"auto, fitted on {count} of them", row)


def average(tasks: dict[str, Pairs], texts: list[str], embeddings: Array) -> float:
    """Of the sets' scores."""
    return scores_by_task(tasks, texts, [embeddings])["average"][0]


def print_row(name: str, scores: list[float]) -> None:
    """A line of the table."""
    print(f"| {name} | {' | '.join(f'{score:.2f}' for score in scores)} |", flush=True)


if __name__ == "__main__":
    main()
