"""Echo on STS: the reference's pooling against those that a portable artifact could name.

    python benchmarks/quality/echo_pooling.py MODEL [--data DIR] [--tasks STS13] [--dtype bfloat16]

The reference pools the second copy of the text and the closing EOS, which no stock module of
sentence-transformers can mark. One forward pass serves all poolings.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import torch
from data_sets import read_tasks, scores_by_task, unique_texts
from machine import describe_machine
from sts import RATIOS, print_table, sts_arguments
from torch import Tensor
from tqdm import tqdm

from st_embfilter import build_model
from st_embfilter.commands.build import parse_dtype

BATCH = 64


def poolings(hidden: Tensor, mask: Tensor, second_copy: Tensor) -> dict[str, Tensor]:
    """What each pooling gives for hidden states ``(batch, tokens, d)`` padded on the right."""
    position = mask.cumsum(1) * mask
    last = torch.nn.functional.one_hot(mask.sum(1) - 1, mask.shape[1])
    weights = {
        "second copy and EOS": second_copy,
        "all tokens": mask,
        "all, weighted by position": position,
        "EOS": last,
    }
    return {
        name: (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        for name, weight in weights.items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = sts_arguments(__doc__)
    parser.add_argument("--dtype", default="auto", help="the backbone's")
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.data, arguments.tasks.split(","))
    texts = sorted(unique_texts(tasks), key=len)

    model = build_model(
        arguments.model,
        band="edge",
        ratio=1,
        prompt="echo",
        format="exact",
        dtype=parse_dtype(arguments.dtype),
        progress=True,
    )
    transformer, matrix = model[0], model[2].linear.weight
    batches: dict[str, list[Tensor]] = {}
    for first in tqdm(range(0, len(texts), BATCH), desc="Encoding"):
        features = transformer.preprocess(texts[first : first + BATCH])
        mask, second_copy = features["attention_mask"], features["pooled_mask"]
        with torch.no_grad():
            hidden = transformer(features)["token_embeddings"].float()
        for name, pooled in poolings(hidden, mask, second_copy).items():
            batches.setdefault(name, []).append(pooled @ matrix.T)

    print(f"{describe_machine()}\nbackbone in {transformer.auto_model.dtype}\n")
    for name, blocks in batches.items():
        embeddings = torch.cat(blocks).numpy()
        sizes = [embeddings.shape[1] // ratio for ratio in (1, *RATIOS)]
        columns = ["raw", *(f"τ = {ratio}" for ratio in RATIOS)]
        scores = scores_by_task(tasks, texts, [embeddings[:, :k] for k in sizes])
        print(f"pooled: {name}\n")
        print_table(tasks, columns, scores)
        print(flush=True)


if __name__ == "__main__":
    main()
