"""What is searched: Cranfield's embeddings, and any number of vectors that lie as real ones do.

    python benchmarks/search/vectors.py MODEL DATA --work DIR

says how much alike these are: the cosines of real embeddings to their nearest and tenth nearest
among 30,000 others, and of drawn vectors among 30,000 drawn.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import faiss
import numpy as np
from data_sets import all_texts, document, rows
from indexes import RATIOS, TOP, Vectors, unit
from numpy.typing import NDArray
from tqdm import tqdm

from st_embfilter.encoding.embedder import Embedder
from st_embfilter.evaluation.evaluated import load_evaluated
from st_embfilter.evaluation.local_data import read_judgements

PARAPHRASE = 4.0  # of 5, in the STS sets
TEXTS_A_COMPONENT = 8
CHUNK = 20_000
COMPARED, AMONG = 1_000, 30_000


@dataclass(frozen=True)
class Retrieval:
    """A retrieval task, encoded.

    Attributes:
        documents: Embeddings ``(n, d)``.
        queries: Embeddings ``(q, d)`` of the judged queries.
        document_ids: n names.
        query_ids: q names.
        judgements: By query and document, how relevant it was judged.
    """

    documents: Vectors
    queries: Vectors
    document_ids: list[str]
    query_ids: list[str]
    judgements: dict[str, dict[str, int]]


class Encoder:
    """An artifact's embeddings with all directions in nested order, each text encoded once.

    Args:
        model: An artifact that was built with --band edge --ratio 1.
        store: What ``st-embfilter evaluate`` wrote to OUT/embeddings, or a folder to be made.
    """

    def __init__(self, model: str, store: Path) -> None:
        self.evaluated = load_evaluated(model, device="cpu")
        self.embedder = Embedder(self.evaluated.unfiltered(), store, self.evaluated.revision)

    def __call__(self, texts: list[str]) -> Vectors:
        """Embeddings ``(n, d)`` of length 1."""
        vectors = self.evaluated.apply_filter(self.embedder(texts))
        faiss.normalize_L2(vectors)
        return vectors


def encode_retrieval(encoder: Encoder, folder: Path) -> Retrieval:
    """Embeddings of a data set in BEIR's layout."""
    judgements = read_judgements(folder / "qrels" / "test.tsv")
    documents = rows(folder / "corpus.jsonl")
    queries = [row for row in rows(folder / "queries.jsonl") if row["_id"] in judgements]
    return Retrieval(
        encoder([document(row) for row in documents]),
        encoder([row["text"] for row in queries]),
        [row["_id"] for row in documents],
        [row["_id"] for row in queries],
        judgements,
    )


def encode_all(encoder: Encoder, data: Path) -> Vectors:
    """Embeddings of the texts of all test sets."""
    return encoder(sorted(text for text in all_texts(data) if text.strip()))


def paraphrase_differences(encoder: Encoder, data: Path) -> Vectors:
    """What is between the embeddings of two texts that people say mean the same ``(n, d)``."""
    pairs = [
        (row["sentence1"], row["sentence2"])
        for path in sorted(data.glob("mteb/STS*/test.jsonl"))
        for row in rows(path)
        if float(row["score"]) >= PARAPHRASE and row["sentence1"] != row["sentence2"]
    ]
    one, other = (encoder(list(texts)) for texts in zip(*pairs, strict=True))
    return one - other


def draw_like(real: Vectors, differences: Vectors, n: int, queries: int, out: Path) -> None:
    """Write vectors that lie as real ones do, and queries that lie near some of them.

    The vectors are of a mixture of Gaussians: the means are those of a k-means of the real vectors,
    one for every 8 of them, chosen as often as real vectors are near; the covariance is the one of
    the real vectors around their means. A query is one of the vectors, moved by a draw from the
    Gaussian of the differences between paraphrases.

    Args:
        real: Unit vectors ``(m, d)``.
        differences: Of paraphrases ``(p, d)``.
        n: How many vectors.
        queries: How many queries.
        out: Takes ``vectors.npy``, ``queries.npy`` and ``sources.npy``.
    """
    width = real.shape[1]
    means = faiss.Kmeans(
        width, max(1, len(real) // TEXTS_A_COMPONENT), seed=0, min_points_per_centroid=1
    )
    means.train(real)
    component = means.index.search(real, 1)[1][:, 0]
    spread = root(real - means.centroids[component])
    random = np.random.default_rng(0)
    drawn = np.lib.format.open_memmap(out / "drawing.npy", "w+", np.float32, (n, width))
    for start in tqdm(range(0, n, CHUNK), desc="Drawing vectors", unit="chunk"):
        part = drawn[start : start + CHUNK]
        noise = random.standard_normal(part.shape, np.float32)
        part[:] = means.centroids[random.choice(component, len(part))] + noise @ spread
    sources = random.choice(n, queries, replace=False)
    noise = random.standard_normal((queries, width), np.float32)
    np.save(out / "sources.npy", sources)
    np.save(out / "queries.npy", drawn[sources] + noise @ root(differences))
    drawn.flush()
    # The last to appear: with it all is there.
    (out / "drawing.npy").replace(out / "vectors.npy")


def root(rows: Vectors) -> Vectors:
    """What gives standard normal rows the second moments of these ``(d, d)``."""
    values, directions = np.linalg.eigh(rows.T.astype(np.float64) @ rows / len(rows))
    result: NDArray[np.float64] = np.sqrt(np.maximum(values, 0))[:, None] * directions.T
    return result.astype(np.float32)


def write_json(path: Path, content: object) -> None:
    """The whole file, or the one that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def main() -> None:
    """Compare real vectors with drawn ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="what scale.py was given")
    arguments = parser.parse_args()
    real = encode_all(Encoder(arguments.model, arguments.work / "embeddings"), arguments.data)
    np.random.default_rng(0).shuffle(real)
    (largest, *_) = sorted(arguments.work.glob("*/vectors.npy"), key=lambda p: -p.stat().st_size)
    drawn = np.load(largest, mmap_mode="r")
    print(f"Cosines to the nearest and the {TOP}th nearest: the 10th, 50th and 90th percentile\n")
    print("| τ | numbers | | nearest | tenth |\n|---:|---:|---|---|---|")
    for ratio in RATIOS:
        k = real.shape[1] // ratio
        for name, vectors in (("real", real), ("drawn", drawn)):
            rows = unit(vectors[: COMPARED + AMONG], k)
            metric = faiss.METRIC_INNER_PRODUCT
            cosines, _ = faiss.knn(rows[:COMPARED], rows[COMPARED:], TOP, metric=metric)
            cells = (
                ", ".join(f"{value:.2f}" for value in np.percentile(cosines[:, i], [10, 50, 90]))
                for i in (0, TOP - 1)
            )
            print(f"| {ratio} | {k} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
