"""A negative control: what the filter does to a model that was trained to embed.

    python benchmarks/quality/trained_encoder.py DIR --texts own.txt [--data DIR]

DIR is a sentence-transformers model whose word embeddings stand for W_U. STS12-16 and SICK-R, raw
against the plain edge, the band auto (fitted on the texts) and a random choice of directions.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
from data_sets import read_tasks, scores_by_task, unique_texts
from machine import describe_machine
from sentence_transformers import SentenceTransformer
from sts import print_table

from st_embfilter import Spectrum, Unembedding, band_indices
from st_embfilter.checkpoint.source import resolve_source
from st_embfilter.spectral.calibration import automatic_filter, principal_directions
from st_embfilter.texts import read_sample


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the folder of a sentence-transformers model")
    parser.add_argument("--texts", type=Path, required=True, help="to fit auto on, one a line")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()

    tasks = read_tasks(arguments.data)
    texts = unique_texts(tasks)
    model = SentenceTransformer(arguments.model, device="cpu")
    raw = model.encode(texts, batch_size=64, show_progress_bar=True)
    sample = model.encode(list(read_sample(arguments.texts)), batch_size=64)
    unembedding = Unembedding.from_word_embeddings(resolve_source(arguments.model))
    directions = Spectrum.from_row_blocks(unembedding.row_blocks()).right_singular_vectors.numpy()
    auto, weights = automatic_filter(directions, principal_directions(sample))

    width = raw.shape[1]
    columns, filtered = [f"raw ({width})"], [raw]
    for k in (width // 2, width // 4, width // 8):
        for name, matrix in (
            ("edge", directions[band_indices(width, k)]),
            ("random", directions[band_indices(width, k, "random")]),
            ("auto", auto[:k]),
        ):
            columns.append(f"{name} ({k})")
            filtered.append(raw @ matrix.T.astype(np.float32))
    print(f"{describe_machine()}\n\nauto's weights: {weights.min():.2f} to {weights.max():.2f}\n")
    print_table(tasks, columns, scores_by_task(tasks, texts, filtered))


if __name__ == "__main__":
    main()
