"""STS with the backbone in float32, bfloat16 and float16, and what casting the filter too costs.

    python benchmarks/precision.py MODEL [--data DIR] [--dtypes float32,bfloat16] [--tasks STS13]

Plain sentence-transformers casts an artifact's filter to the backbone's dtype; FilterModule leaves
it in float32. Both are applied to the same pooled embeddings, so their columns differ by the cast
alone.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from sentence_transformers import SentenceTransformer
from sts import RATIOS, TASKS, average, print_table, read_tasks, score, unique_texts

from st_embfilter import build_model, save_pretrained


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dtypes", default="float32,bfloat16,float16")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--json", type=Path, help="also write the scores here")
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.data, arguments.tasks.split(","))
    texts = unique_texts(tasks)

    print(describe_machine())
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        artifact = str(save_pretrained(build_model(arguments.model, ratio=1), f"{folder}/model"))
        for name in arguments.dtypes.split(","):
            dtype = getattr(torch, name)
            model = SentenceTransformer(artifact, model_kwargs={"dtype": dtype})
            matrix = SentenceTransformer(artifact)[2].linear.weight.detach()
            pooled = SentenceTransformer(modules=[model[0], model[1]]).encode(
                texts, batch_size=64, convert_to_tensor=True, show_progress_bar=True
            )
            exact = pooled.float() @ matrix.T
            cast = (pooled.to(dtype) @ matrix.to(dtype).T).float()
            columns: dict[str, np.ndarray] = {"raw": pooled.float().numpy()}
            for ratio in RATIOS:
                k = matrix.shape[0] // ratio
                columns[f"τ = {ratio}"] = exact[:, :k].numpy()
                if name != "float32":
                    columns[f"τ = {ratio}, filter in {name}"] = cast[:, :k].numpy()
            scores = {t: [score(tasks[t], texts, c) for c in columns.values()] for t in tasks}
            results[name] = {"columns": list(columns), "scores": average(scores)}
            print(f"\nbackbone in {name}\n")
            print_table(tasks, **results[name])
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
