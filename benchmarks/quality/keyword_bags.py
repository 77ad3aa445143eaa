"""Texts that are bags of keywords: what the filter does to their clusters, and where these lie.

    python benchmarks/quality/keyword_bags.py MODEL own.txt [--data DIR]

No such set is at hand, so bags are made: the words of three titles (StackOverflowTitlesClustering)
or three questions (Banking77, its first 20 intents) of one label, without stop words, shuffled.
V-measure × 100 of k-means; and by band of the spectrum, the share of what tells labels apart.
"""

import argparse
import json
import random
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
from machine import describe_machine
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.metrics import v_measure_score

from st_embfilter import Unembedding, band_indices, build_model
from st_embfilter.checkpoint.unembedding import compute_spectrum
from st_embfilter.spectral.calibration import automatic_filter, principal_directions
from st_embfilter.texts import read_sample

SETS = {
    "titles": "extra/StackOverflowTitlesClustering/test.jsonl",
    "questions": "mteb/Banking77Classification/test.jsonl",
}
LABELS, BAGS, TITLES = 20, 35, 3
RATIOS = (2, 4, 8)
SEEDS = range(5)


def make_bags(path: Path) -> tuple[list[str], list[str]]:
    """Bags of keywords, and their labels."""
    by_label: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_label.setdefault(str(row["label"]), []).append(row["text"])
    draw = random.Random(0)
    bags, labels = [], []
    for label in sorted(by_label)[:LABELS]:
        for _ in range(BAGS):
            text = " ".join(draw.sample(by_label[label], TITLES)).lower()
            words = [w for w in re.findall(r"[\w+#.]+", text) if w not in ENGLISH_STOP_WORDS]
            draw.shuffle(words)
            bags.append(" ".join(words))
            labels.append(label)
    return bags, labels


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("texts", type=Path, help="to fit auto on, one a line")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    spectrum = compute_spectrum(Unembedding.from_pretrained(arguments.model))
    # All directions in the spectrum's order: a rotation of the raw embeddings.
    width = spectrum.width
    model = build_model(arguments.model, band=range(width), spectrum=spectrum)
    sample = model.encode(list(read_sample(arguments.texts)), show_progress_bar=True)
    auto, _ = automatic_filter(np.eye(width), principal_directions(sample))

    print(f"{describe_machine()}\n")
    sizes = [width // ratio for ratio in RATIOS]
    columns = [f"raw ({width})", *(f"{name} ({k})" for k in sizes for name in ("edge", "auto"))]
    print(f"| bags of | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    shares = []
    for name, path in SETS.items():
        bags, labels = make_bags(arguments.data / path)
        rows = model.encode(bags, show_progress_bar=True)
        cells = [v_measure(rows, labels)]
        for k in sizes:
            cells += [v_measure(rows[:, band_indices(width, k)], labels)]
            cells += [v_measure(rows @ auto[:k].T.astype(np.float32), labels)]
        print(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)
        shares.append((name, between_labels(rows, np.array(labels))))

    kept = sorted(band_indices(width, width // 2))
    ends = {"head end": slice(0, kept[0]), "kept": slice(kept[0], kept[-1] + 1)}
    ends["tail end"] = slice(kept[-1] + 1, width)
    print(f"\n| variance between labels, τ = 2 | {' | '.join(ends)} |\n|---|---:|---:|---:|")
    for name, energy in shares:
        cells = [energy[band].sum() / energy.sum() for band in ends.values()]
        print(f"| {name} | {' | '.join(f'{cell:.0%}' for cell in cells)} |")


def v_measure(embeddings: np.ndarray, labels: list[str]) -> float:
    """Of k-means, the mean over a few starts."""
    found = (KMeans(LABELS, n_init=2, random_state=seed).fit_predict(embeddings) for seed in SEEDS)
    return float(100 * np.mean([v_measure_score(labels, clusters) for clusters in found]))


def between_labels(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The variance of the labels' means along every direction ``(d,)``."""
    means = [rows[labels == label].mean(axis=0) for label in np.unique(labels)]
    return np.var(means, axis=0)


if __name__ == "__main__":
    main()
