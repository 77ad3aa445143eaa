"""A retrieval task with millions of documents: how much memory an evaluation takes.

    python benchmarks/memory/large_corpus.py [--documents 2000000] [--queries 200]

The texts are made up, and the encoder is a table of word vectors, as fast as tokenizing. Every
query is a document's text, so a nDCG@10 of 1 shows that no document was lost.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import torch
from machine import describe_machine
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers

DIMENSIONS = 256
WORDS = 4096


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_encoder(work / "words")
        write_corpus(work / "data" / "beir" / "made-up", arguments.documents, arguments.queries)
        start = time.perf_counter()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "st_embfilter", "evaluate", str(work / "words")),
                *("--data", str(work / "data"), "--out", str(work / "out")),
                *("--ratios", "1,2", "--against", "truncate", "--batch-size", "1024", "--json"),
            ],
            env={**os.environ, "HF_DATASETS_CACHE": str(work / "cache")},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        took = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        stored = sum(file.stat().st_size for file in work.glob("out/embeddings/*/keys.bin")) // 16
        disk = sum(file.stat().st_size for file in work.glob("out/embeddings/*/*")) / 2**30
        scores = json.loads(done.stdout)["scores"]
    ranks = ", ".join(f"{s['method']} {s['dimensions']}: {s['score'] / 100:.4f}" for s in scores)
    print(f"{describe_machine()}\n")
    print("| documents | embeddings stored | on disk | peak memory | time | nDCG@10 |")
    print("|---:|---:|---:|---:|---:|---|")
    print(
        f"| {arguments.documents:,} | {stored:,} | {disk:.1f} GiB | {peak:.2f} GiB | {took:.0f} s "
        f"| {ranks} |"
    )


def make_encoder(folder: Path) -> None:
    """A sentence-transformers model that adds up a random vector a word."""
    from sentence_transformers.models import StaticEmbedding

    vocabulary = {f"w{i}": i for i in range(WORDS)} | {"[UNK]": WORDS}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    weights = torch.randn(WORDS + 1, DIMENSIONS).numpy()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)])
    model.save(str(folder))


def write_corpus(folder: Path, documents: int, queries: int) -> None:
    """Document i is its number in words: all differ."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for i in range(documents):
            file.write(json.dumps({"_id": f"d{i}", "title": "", "text": text_of(i)}) + "\n")
    asked = range(0, documents, documents // queries)
    with (folder / "queries.jsonl").open("w") as file:
        file.writelines(json.dumps({"_id": f"q{i}", "text": text_of(i)}) + "\n" for i in asked)
    with (folder / "qrels" / "test.tsv").open("w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"q{i}\td{i}\t1\n" for i in asked)


def text_of(number: int) -> str:
    """Words for the digits of a number in base 4096, and for its products: short, and unique."""
    values = (number % WORDS, number // WORDS, number * 7919 % WORDS, number * 104729 % WORDS)
    return " ".join(f"w{value}" for value in values)


if __name__ == "__main__":
    main()
