"""The backbone in ONNX Runtime and OpenVINO against `encode`, on the same tokens.

    st-embfilter export ARTIFACT onnx
    st-embfilter export ARTIFACT openvino
    python benchmarks/speed/runtimes.py ARTIFACT --data DIR [--pairs 150] [--only compiled]

The sentences of pairs of STS16, a batch after the other by length, as `encode` does it. An exported
graph takes no keys and values, so it computes the prompt anew with every text; `encode` is timed
that way too, and compiled by PyTorch, without its first call, of minutes. int8: matrices and what
they are multiplied with, quantized by ONNX Runtime.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
import onnxruntime
import openvino
import torch
from data_sets import read_tasks, sts_score
from encoding_ways import BATCH, distance, encode_anew, encoder_of
from machine import describe_machine
from onnxruntime.quantization import quantize_dynamic
from peaks import once
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import normalize

from st_embfilter.artifact.graphs import onnx_runner
from st_embfilter.encoding.batches import batches, padded
from st_embfilter.encoding.loading import load_model
from st_embfilter.encoding.prefix_encoder import SPARE_TOKENS, TOKENS_A_TEXT, PrefixEncoder

TASK = "STS16"
ROUNDS = 3
# Ids and mask in, hidden states out.
Graph = Callable[[dict[str, np.ndarray]], np.ndarray]
Way = Callable[[list[str]], np.ndarray]


def in_openvino(path: Path, precision: str) -> Graph:
    graph = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda features: np.asarray(graph(features)[0])


def encode_with_graph(model: SentenceTransformer, graph: Graph, texts: list[str]) -> np.ndarray:
    """The last token's state through the filter, batches in the order of their lengths."""
    encoder = PrefixEncoder(model)
    rows = encoder._tokenize([f"{encoder.front(None)}{text}" for text in texts])
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
    pooled = torch.empty(len(rows), model[2].in_features)
    for batch in batches(order, rows, 0, BATCH * TOKENS_A_TEXT, SPARE_TOKENS):
        ids = padded([rows[row].ids for row in batch])
        mask = padded([torch.ones_like(rows[row].ids) for row in batch])
        states = graph({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        last = mask.sum(dim=1) - 1
        pooled[batch] = torch.from_numpy(states)[torch.arange(len(batch)), last]
    filtered: Tensor = model[2]({"sentence_embedding": pooled})["sentence_embedding"]
    return filtered.detach().numpy()


def compiled(artifact: Path, dtype: torch.dtype) -> PrefixEncoder:
    model = load_model(artifact, device="cpu", dtype=dtype)
    model[0].auto_model.compile(dynamic=True)
    return PrefixEncoder(model)


def ways(artifact: Path, work: Path) -> Iterator[tuple[str, Callable[[], Way]]]:
    """Every runtime and precision, by its name, and what loads it."""
    for dtype in (torch.float32, torch.bfloat16):
        name = f"`encode`, {str(dtype).removeprefix('torch.')}"
        ours = partial(encoder_of, artifact, dtype)
        yield name, lambda ours=ours: ours().encode
        yield f"{name}, the prompt anew", lambda ours=ours: partial(encode_anew, ours())
        yield f"{name}, compiled", lambda dtype=dtype: compiled(artifact, dtype).encode
    graphs: list[tuple[str, Callable[[], Any]]] = [
        ("ONNX Runtime, float32", lambda: onnx_runner(artifact / "onnx" / "model.onnx")),
        ("ONNX Runtime, int8", lambda: onnx_runner(quantized(artifact, work))),
        *(
            (
                f"OpenVINO, {precision}",
                partial(in_openvino, artifact / "openvino" / "openvino_model.xml", precision),
            )
            for precision in ("f32", "bf16")
        ),
    ]
    model = load_model(artifact, device="cpu", dtype=torch.float32)
    for name, load in graphs:
        yield name, lambda load=load: partial(encode_with_graph, model, load())


def quantized(artifact: Path, work: Path) -> Path:
    quantize_dynamic(artifact / "onnx" / "model.onnx", work / "int8.onnx")
    return work / "int8.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--only", default="", help="ways with this in their names")
    arguments = parser.parse_args()
    left, right, gold = (
        part[: arguments.pairs] for part in read_tasks(arguments.data, [TASK])[TASK]
    )
    texts = [*left, *right]
    versions = f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}"
    print(f"{describe_machine()}, {versions}\n")
    print(f"{len(texts)} texts of {TASK}, best of {ROUNDS}, in turn with `encode` in float32\n")
    print("| | texts/s | of `encode`, float32 | STS16 of these | largest difference |")
    print("|---|---:|---:|---:|---:|")
    ours = encoder_of(arguments.artifact, torch.float32).encode
    expected = ours(texts)
    with tempfile.TemporaryDirectory() as work:
        for name, load in ways(arguments.artifact, Path(work)):
            if arguments.only not in name:
                continue
            way = load()
            found = way(texts)
            rounds = [
                [once(partial(task, texts), "cpu")[1] for task in (ours, way)]
                for _ in range(ROUNDS)
            ]
            base, spent = (min(taken) for taken in zip(*rounds, strict=True))
            unit = normalize(torch.from_numpy(found)).numpy()
            score = sts_score(unit[: len(left)], unit[len(left) :], gold)
            cells = f"{base / spent:.2f} | {score:.2f} | {distance(found, expected):.0e}"
            print(f"| {name} | {len(texts) / spent:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
