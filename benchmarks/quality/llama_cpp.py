"""llama.cpp's server against sentence-transformers: the same embeddings, and the same scores?

    python benchmarks/quality/llama_cpp.py DIR MODEL.gguf --python .venv-compat/llamacpp/bin/python

MODEL.gguf is the language model that the artifact DIR was built from. It is served as it is, with
the filter applied here, and as the one file that ``st-embfilter export DIR gguf`` makes; both are
given tokens, and the one file also strings, as most clients send them. PYTHON has xllamacpp.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
from data_sets import Pairs, read_tasks, scores_by_task, unique_texts
from machine import describe_machine
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter import VectorFilter
from st_embfilter.artifact.gguf_export import export_gguf
from st_embfilter.artifact.server import EmbeddingServer
from st_embfilter.layout.manifest import Manifest

CLIENT = Path(__file__).parents[2] / "tests" / "compat" / "clients" / "llamacpp_server.py"
# So many the server computes in one batch.
AT_ONCE = 4
COMPARED = 200
Input = str | list[int]
Vectors = NDArray[np.float32]


def draw(pairs: Pairs, count: int) -> Pairs:
    """So many of a task's pairs."""
    chosen = random.Random(0).sample(range(len(pairs[2])), min(count, len(pairs[2])))
    left, right, gold = ([column[place] for place in chosen] for column in pairs)
    return left, right, gold


@contextmanager
def llama_cpp(python: Path, *arguments: str | Path) -> Iterator[EmbeddingServer]:
    """A running server."""
    command = [python, CLIENT, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin and process.stdout
        yield EmbeddingServer(process.stdout.readline().strip())
        process.stdin.close()


def embed(server: EmbeddingServer, inputs: Sequence[Input], at_once: int) -> Vectors:
    """What it gives, in the inputs' order."""
    with ThreadPoolExecutor(at_once) as pool:
        rows = tqdm(pool.map(server.embed, inputs), total=len(inputs), unit="text")
        return np.array(list(rows), np.float32)


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Row by row."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: NDArray[np.float64] = (left * right).sum(axis=1, dtype=np.float64) / lengths
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", default="STS13,STS16")
    parser.add_argument("--pairs", type=int, default=300, help="of each task, drawn at random")
    arguments = parser.parse_args()
    whole = read_tasks(arguments.data, arguments.tasks.split(","))
    tasks = {name: draw(pairs, arguments.pairs) for name, pairs in whole.items()}
    texts = unique_texts(tasks)

    model = SentenceTransformer(str(arguments.artifact), device="cpu")
    tokens = [model.tokenizer(text)["input_ids"] for text in texts]
    template = Manifest.read(arguments.artifact).prompt
    strings = [template.replace("{text}", text) for text in texts]
    expected = model.encode(texts, show_progress_bar=True)
    vector_filter = VectorFilter.from_artifact(arguments.artifact)
    k = vector_filter.dimensions

    python, first = arguments.python, slice(0, len(texts), max(1, len(texts) // COMPARED))
    ways: dict[str, Vectors] = {}
    alone: dict[str, Vectors] = {}
    with tempfile.TemporaryDirectory() as folder:
        one_file = export_gguf(arguments.artifact, arguments.model, f"{folder}/one.gguf", None)
        sizes = {path: path.stat().st_size / 1e6 for path in (arguments.model, one_file)}
        with llama_cpp(python, arguments.model, "--pooling", "last") as server:
            name = "filter by the client, tokens"
            ways[name] = vector_filter.apply(embed(server, tokens, AT_ONCE))
            alone[name] = vector_filter.apply(embed(server, tokens[first], 1))
        with llama_cpp(python, one_file) as server:
            for kind, inputs in (("tokens", tokens), ("strings", strings)):
                name = f"one file, {kind}"
                ways[name] = embed(server, inputs, AT_ONCE)[:, :k]
                alone[name] = embed(server, inputs[first], 1)[:, :k]

    print(describe_machine())
    print(f"{arguments.artifact.name}, {k} dimensions; ", end="")
    print(f"{arguments.model.name} {sizes[arguments.model]:.1f} MB, ", end="")
    print(f"the one file {sizes[one_file]:.1f} MB; {arguments.pairs} pairs of each task\n")
    scores = scores_by_task(tasks, texts, [expected, *ways.values()])
    shown = " | ".join(scores)
    compared = len(expected[first])
    print(f"| | {shown} | cosine to it, {compared} texts: mean, least | {AT_ONCE} at once, least |")
    print(f"|---|{'---:|' * (len(scores) + 2)}")
    for place, name in enumerate(["sentence-transformers", *ways]):
        cells = [f"{column[place]:.2f}" for column in scores.values()]
        if name in ways:
            near = cosines(ways[name][first], expected[first])
            same = cosines(ways[name][first], alone[name])
            cells += [f"{near.mean():.5f}, {near.min():.5f}", f"{same.min():.7f}"]
        else:
            cells += ["", ""]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
