"""What an index of a million vectors takes and gives, at every τ.

    python benchmarks/search/scale.py MODEL DATA --work DIR [--vectors 1000000] [--queries 1000]

MODEL is an artifact that was built with --band edge --ratio 1, DATA a folder as `st-embfilter
evaluate --data` reads it. The vectors are drawn to lie as the model's embeddings of DATA's texts
do (draw_like in vectors.py) and kept in DIR, which also keeps the embeddings. Results are added to
--out one index at a time: run again, it goes on with those that are missing; --ratios and --kinds
choose among them.

Indexes are built with all cores and searched with one thread, a query at a time, in turn with a
flat float32 index of all d numbers. Both are told in the processor's time, which on a machine that
does other things too is less than what passes; building counts that of all cores together.

- recall: of the 10 nearest over the same k numbers, how many the index finds: what the index loses.
- found: queries whose source, the vector that they are a paraphrase of, is the first: what fewer
  numbers lose as well.
- agreement: of the 10 nearest at τ = 2 in float32, how many are found.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import faiss
import numpy as np
from indexes import KINDS, RATIOS, TOP, Found, Vectors, build_flat, search, stored_bytes, unit
from machine import describe_machine

from vectors import Encoder, draw_like, encode_all, paraphrase_differences, write_json

RECALL = 0.95
NEAR_THE_BEST = 0.01
ROUNDS = 5
SECONDS = 1.0
RESULTS = Path(__file__).parents[1] / "results" / "search" / "scale.json"


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="takes vectors of 4 × d bytes")
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder = arguments.work / f"{arguments.vectors}"
    if not (folder / "vectors.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        encoder = Encoder(arguments.model, arguments.work / "embeddings")
        real = encode_all(encoder, arguments.data)
        differences = paraphrase_differences(encoder, arguments.data)
        draw_like(real, differences, arguments.vectors, arguments.queries, folder)
    corpus = Corpus(folder)
    result = {"machine": "", "build_threads": os.cpu_count(), "width": corpus.width, "rows": []}
    if arguments.out.exists():
        result = json.loads(arguments.out.read_text(encoding="utf-8"))
    result["machine"] = f"{describe_machine()}, faiss {faiss.__version__}"
    raw = None
    for ratio in map(int, arguments.ratios.split(",")):
        for name in arguments.kinds.split(","):
            key = {"ratio": ratio, "kind": name, "vectors": corpus.count}
            if any(key.items() <= row.items() for row in result["rows"]):
                continue
            raw = raw or build_flat(corpus.unit(corpus.width), corpus.queries)
            row = key | measure(corpus, name, corpus.width // ratio, raw)
            print(json.dumps(row), flush=True)
            result["rows"] = sorted(
                [*result["rows"], row],
                key=lambda row: (row["vectors"], list(KINDS).index(row["kind"]), row["ratio"]),
            )
            write_json(arguments.out, result)


class Corpus:
    """Vectors to search in, on disk, and queries with what they should find."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.queries: Vectors = np.load(folder / "queries.npy")
        self.sources: Found = np.load(folder / "sources.npy")
        self.count, self.width = self.vectors.shape

    def unit(self, k: int) -> Vectors:
        """The vectors' first k numbers, at length 1."""
        return unit(self.vectors, k)

    def nearest(self, k: int, vectors: Vectors | None = None) -> Found:
        """The 10 nearest to each query over k numbers, exactly."""
        path = self.folder / f"nearest-{k}.npy"
        if not path.exists():
            vectors = self.unit(k) if vectors is None else vectors
            metric = faiss.METRIC_INNER_PRODUCT
            found = faiss.knn(unit(self.queries, k), vectors, TOP, metric=metric)[1]
            np.save(path, found)
        nearest: Found = np.load(path)
        return nearest


def measure(corpus: Corpus, name: str, k: int, raw: Any) -> dict[str, Any]:
    """A row of the table: one kind of index over k numbers."""
    kind, cores = KINDS[name], os.cpu_count() or 1
    half = corpus.nearest(corpus.width // 2)
    vectors, queries = corpus.unit(k), unit(corpus.queries, k)
    nearest = corpus.nearest(k, vectors)
    if kind.centred:
        mean = vectors.mean(axis=0)
        vectors -= mean
        queries -= mean
    faiss.omp_set_num_threads(cores)
    start = time.process_time()
    index = kind.build(vectors, vectors)
    seconds = time.process_time() - start
    del vectors
    found = {setting: search(index, queries, setting) for setting in kind.settings}
    recalls = {setting: shared(ids, nearest) for setting, ids in found.items()}
    setting = first_good(recalls)
    faiss.omp_set_num_threads(1)
    full = unit(corpus.queries, corpus.width)
    speed, ratio = speeds_in_turn((index, queries, setting), (raw, full))
    faiss.omp_set_num_threads(cores)
    return {
        "dimensions": k,
        "bytes_per_vector": stored_bytes(index) / corpus.count,
        "build_core_seconds": seconds,
        "setting": setting if kind.parameter else None,
        "recall": recalls[setting],
        "queries_per_second": speed,
        "times_flat_raw": ratio,
        "found": float((found[setting][:, 0] == corpus.sources).mean()),
        "agreement": shared(found[setting], half),
        "recalls": recalls if kind.parameter else None,
    }


def first_good(recalls: dict[int, float]) -> int:
    """The fastest setting with enough recall; where none has, the fastest that is near the best."""
    best = max(recalls.values())
    enough = RECALL if best >= RECALL else best - NEAR_THE_BEST
    return next(setting for setting, recall in recalls.items() if recall >= enough)


def shared(found: Found, nearest: Found) -> float:
    """How many of the nearest were found, as a share of all."""
    hits = (found[:, :, None] == nearest[:, None, :]).any(axis=1)
    return float(hits.mean())


def speeds_in_turn(ours: tuple[Any, Vectors, int], raw: tuple[Any, Vectors]) -> tuple[float, float]:
    """Queries a second of one index, and how many times those of the other: medians."""
    pairs = [(queries_per_second(*ours), queries_per_second(*raw)) for _ in range(ROUNDS)]
    return (
        statistics.median(own for own, _ in pairs),
        statistics.median(own / other for own, other in pairs),
    )


def queries_per_second(index: Any, queries: Vectors, setting: int = 0) -> float:
    """Over about a second, a query at a time."""
    asked, start = 0, time.thread_time()
    while (took := time.thread_time() - start) < SECONDS:
        row = asked % len(queries)
        search(index, queries[row : row + 1], setting)
        asked += 1
    return asked / took


if __name__ == "__main__":
    main()
