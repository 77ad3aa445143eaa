"""How well each kind of index searches Cranfield, at every τ: nDCG@10.

    python benchmarks/search/quality.py MODEL DATA --work DIR

MODEL is an artifact that was built with --band edge --ratio 1, DATA a folder as `st-embfilter
evaluate --data` reads it, with Cranfield alone in beir/. DIR keeps the embeddings. HNSW and IVF-PQ
look as far as they can (the slowest setting), so that what is measured is what the codes lose.
IVF-PQ's codes are trained on texts of all test sets, since 1,400 documents are too few; the ranges
of int8 are the documents'.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import faiss
import numpy as np
import pytrec_eval
from indexes import (
    KINDS,
    RATIOS,
    RESCORE_MULTIPLIER,
    TOP,
    Found,
    Vectors,
    search,
    stored_bytes,
    unit,
)
from machine import describe_machine
from numpy.typing import NDArray
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss

from vectors import Encoder, Retrieval, encode_all, encode_retrieval, write_json

RESAMPLES = 2_000
RESULTS = Path(__file__).parents[1] / "results" / "search" / "quality.json"


def main() -> None:
    """Print and write a row for every τ and kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    encoder = Encoder(arguments.model, arguments.work / "embeddings")
    (folder,) = (arguments.data / "beir").iterdir()
    task = encode_retrieval(encoder, folder)
    sample = encode_all(encoder, arguments.data)
    np.random.default_rng(0).shuffle(sample)
    machine = f"{describe_machine()}, faiss {faiss.__version__}"
    print(f"{machine}\n{len(task.documents):,} documents, {len(task.queries)} queries\n")
    print("| τ | numbers | index | bytes a vector | nDCG@10 × 100 | less raw flat |")
    print("|---:|---:|---|---:|---:|---:|")
    rows: list[dict[str, Any]] = []
    width = task.documents.shape[1]
    raw = None
    for ratio in RATIOS:
        k = width // ratio
        for name, (index, found) in answers(task, sample, k).items():
            scores = ndcg(task, found)
            raw = scores if raw is None else raw
            low, high = interval(scores - raw)
            row = {
                "ratio": ratio,
                "kind": name,
                "dimensions": k,
                "bytes_per_vector": stored_bytes(index) / len(task.documents),
                "ndcg_at_10": float(scores.mean()),
                "less_raw": [float((scores - raw).mean()), low, high],
            }
            rows.append(row)
            print(
                f"| {ratio} | {k} | {name} | {row['bytes_per_vector']:,.0f} "
                f"| {100 * row['ndcg_at_10']:.2f} "
                f"| {100 * row['less_raw'][0]:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] |"
            )
    write_json(arguments.out, {"machine": machine, "width": width, "rows": rows})


def answers(task: Retrieval, sample: Vectors, k: int) -> dict[str, tuple[Any, Found]]:
    """Each kind's index over k numbers, and what it finds."""
    documents, queries = unit(task.documents, k), unit(task.queries, k)
    result = {}
    for name, kind in KINDS.items():
        mean = documents.mean(axis=0) * kind.centred
        index = kind.build(documents - mean, unit(sample, k))
        result[name] = index, search(index, queries - mean, kind.settings[-1])
    rows, _, index = semantic_search_faiss(
        queries,
        quantize_embeddings(documents, precision="uint8"),
        corpus_precision="uint8",
        calibration_embeddings=documents,
        top_k=TOP,
        rescore_multiplier=RESCORE_MULTIPLIER,
        output_index=True,
    )
    ids = np.array([[hit["corpus_id"] for hit in row] for row in rows])
    result["uint8 as sentence-transformers searches it"] = index, ids
    return result


def ndcg(task: Retrieval, found: Found) -> NDArray[np.float64]:
    """The nDCG@10 of each query ``(q,)``."""
    run = {
        query: {task.document_ids[i]: -float(rank) for rank, i in enumerate(ids)}
        for query, ids in zip(task.query_ids, found, strict=True)
    }
    scores = pytrec_eval.RelevanceEvaluator(task.judgements, {"ndcg_cut.10"}).evaluate(run)
    return np.array([scores[query]["ndcg_cut_10"] for query in task.query_ids])


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 95% interval of the mean, by resampling queries."""
    random = np.random.default_rng(0)
    picks = random.integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
