"""STS with the backbone in float32, bfloat16 and float16, and what casting the filter too costs.

    python benchmarks/quality/precision.py MODEL [--data DIR] [--dtypes float32,bfloat16]

Plain sentence-transformers casts an artifact's filter to the backbone's dtype; FilterModule leaves
it in float32. Both are applied to the same pooled embeddings, so their columns differ by the cast
alone.
"""

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
import torch
from data_sets import read_tasks, scores_by_task, unique_texts
from machine import describe_machine
from sentence_transformers import SentenceTransformer
from sts import RATIOS, print_table, sts_arguments

from st_embfilter import build_model, save_pretrained


def main() -> None:
    """Run the benchmark."""
    parser = sts_arguments(__doc__)
    parser.add_argument("--dtypes", default="float32,bfloat16,float16")
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.data, arguments.tasks.split(","))
    texts = unique_texts(tasks)

    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        built = build_model(arguments.model, band="edge", ratio=1)
        matrix = built[2].linear.weight.detach().cpu()
        artifact = str(save_pretrained(built, f"{folder}/model"))
        for name in arguments.dtypes.split(","):
            dtype = getattr(torch, name)
            model = SentenceTransformer(artifact, model_kwargs={"dtype": dtype})
            pooled = (
                SentenceTransformer(modules=[model[0], model[1]])
                .encode(texts, batch_size=64, convert_to_tensor=True, show_progress_bar=True)
                .cpu()
            )
            exact = pooled.float() @ matrix.T
            cast = (pooled.to(dtype) @ matrix.to(dtype).T).float()
            columns: dict[str, np.ndarray] = {"raw": pooled.float().numpy()}
            for ratio in RATIOS:
                k = matrix.shape[0] // ratio
                columns[f"τ = {ratio}"] = exact[:, :k].numpy()
                if name != "float32":
                    columns[f"τ = {ratio}, filter in {name}"] = cast[:, :k].numpy()
            scores = scores_by_task(tasks, texts, list(columns.values()))
            print(f"\nbackbone in {name}\n")
            print_table(tasks, list(columns), scores)


if __name__ == "__main__":
    main()
