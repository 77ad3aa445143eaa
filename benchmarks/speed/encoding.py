"""Encoding: the prompt computed once, against plain sentence-transformers and the reference's way.

    python benchmarks/speed/encoding.py MODEL [--data DIR] [--texts 384] [--scores]

MODEL is an artifact with a prompt (PromptEOL), DIR holds STS12 to STS16 in mteb's rows. Texts are
drawn from all of them, no text twice; without DIR they are made up. Timed in turn, in float32 and
bfloat16:

* ``SentenceTransformer.encode`` of the artifact with its defaults;
* the reference's way: batches in the order of the texts, the prompt in each text, the filter on
  every token before the last one is picked;
* ``PrefixEncoder.encode``, the weights packed, as `encode` does it.

The limit is the matrix rate: the backbone's products of as many tokens as a way has to compute, and
nothing else, as fast as a large square product goes.

Then the filter's own share of the time, and with ``--scores`` the STS scores of float32 through
sentence-transformers and of bfloat16 through ``PrefixEncoder`` over all texts (much longer).
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
import torch
from data_sets import read_tasks, scores_by_task, unique_texts
from encoding_ways import (
    BATCH,
    count_tokens,
    distance,
    encode_as_reference,
    encoder_of,
    operations_a_token,
)
from machine import describe_machine
from made_texts import made_texts
from peaks import SQUARE, matrix_rate
from sentence_transformers import SentenceTransformer

from st_embfilter.encoding.loading import load_model

TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16")


def seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def dtype_of(way: str) -> torch.dtype:
    return torch.bfloat16 if way.endswith("bfloat16") else torch.float32


def filter_share(model: SentenceTransformer, texts: list[str], whole: float) -> float:
    """The filter's time for so many pooled embeddings, in batches, as a share of the whole."""
    dense = model[2]
    pooled = torch.randn(BATCH, dense.linear.in_features, dtype=dense.linear.weight.dtype)
    with torch.inference_mode():
        once = seconds(lambda: [dense({"sentence_embedding": pooled}) for _ in range(100)]) / 100
    return once * len(texts) / BATCH / whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scores", action="store_true")
    arguments = parser.parse_args()
    if arguments.scores and not arguments.data:
        parser.error("--scores needs --data")
    tasks = read_tasks(arguments.data, TASKS) if arguments.data else {}
    everything = unique_texts(tasks) if tasks else made_texts(arguments.texts)
    texts = random.Random(0).sample(everything, arguments.texts)
    models = {
        dtype: load_model(arguments.model, device="cpu", dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    plain, low = models.values()
    encoders = {dtype: encoder_of(arguments.model, dtype) for dtype in models}
    ways: dict[str, Callable[[], np.ndarray]] = {
        "sentence-transformers": lambda: plain.encode(texts),
        "the reference's way": lambda: encode_as_reference(plain, texts),
        "PrefixEncoder": lambda: encoders[torch.float32].encode(texts),
        "sentence-transformers, bfloat16": lambda: low.encode(texts),
        "PrefixEncoder, bfloat16": lambda: encoders[torch.bfloat16].encode(texts),
    }
    found = {name: way() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            times[name].append(seconds(way))
    first = next(iter(ways))
    best = {name: min(taken) for name, taken in times.items()}
    print(f"{describe_machine()}\n\n{len(texts)} texts, best of {arguments.rounds}")
    rates = {dtype: matrix_rate(dtype, "cpu", SQUARE) for dtype in models}
    tokens, suffixes = count_tokens(encoders[torch.float32], texts)
    print(f"{tokens} tokens, {suffixes} of them behind what all texts share")
    for dtype, rate in rates.items():
        print(f"{dtype}, {SQUARE} × {SQUARE} × {SQUARE}: {rate / 1e9:.0f} GFLOP/s")
    print("\n| | texts/s | of sentence-transformers | of the matrix rate | largest difference |")
    print("|---|---:|---:|---:|---:|")
    for name, taken in best.items():
        computed = suffixes if name.startswith("PrefixEncoder") else tokens
        at_best = computed * operations_a_token(plain) / rates[dtype_of(name)]
        cells = (
            f"{len(texts) / taken:.1f}",
            f"{best[first] / taken:.2f}",
            f"{at_best / taken:.0%}",
            f"{distance(found[name], found[first]):.0e}",
        )
        print(f"| {name} | {' | '.join(cells)} |")
    ours = best["PrefixEncoder"]
    print(f"\nPrefixEncoder against the reference's way: {best[list(ways)[1]] / ours:.2f}")
    print(f"The filter's own share: {filter_share(plain, texts, ours):.2%}")
    if arguments.scores:
        columns = [plain.encode(everything), encoders[torch.bfloat16].encode(everything)]
        print("\n| | float32 | PrefixEncoder, bfloat16 |\n|---|---:|---:|")
        for name, (exact, fast) in scores_by_task(tasks, everything, columns).items():
            print(f"| {name} | {exact:.2f} | {fast:.2f} |")


if __name__ == "__main__":
    main()
