"""Small evaluation sets in the layouts that ``evaluate --data`` reads."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TOPICS = {
    "animals": "dog cat horse bird fish mouse sheep goat",
    "food": "bread soup rice apple cheese salad pie cake",
    "music": "guitar piano drum song violin choir flute band",
    "weather": "rain snow wind cloud storm sun fog ice",
}


def sentence(words: Iterable[str], generator: random.Random) -> str:
    return f"the {' and the '.join(generator.sample(sorted(words), 3))} {generator.randrange(1000)}"


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_sets(folder: Path, size: int = 40) -> Path:
    """One of each kind, ``size`` items each."""
    generator = random.Random(0)
    topics = [words.split() for words in TOPICS.values()]
    labels = list(TOPICS)

    pairs = []
    for _ in range(size):
        first, second = generator.choice(topics), generator.choice(topics)
        left, right = sentence(first, generator), sentence(second, generator)
        score = 5 * len(set(left.split()) & set(right.split())) / 6
        pairs.append({"sentence1": left, "sentence2": right, "score": score})
    write_rows(folder / "mteb" / "STS16" / "test.jsonl", pairs)

    def labelled(count: int, classes: int) -> list[dict[str, Any]]:
        picks = [i % classes for i in range(count)]
        return [{"text": sentence(topics[i], generator), "label": i} for i in picks]

    for split in ("train", "test"):
        path = folder / "mteb" / "AmazonCounterfactualClassification" / f"{split}.jsonl"
        write_rows(path, labelled(2 * size, 2))

    rows = labelled(size, 4)
    named = [{"text": row["text"], "label": labels[row["label"]]} for row in rows]
    write_rows(folder / "extra" / "TopicsClustering" / "test.jsonl", named)

    documents = [
        {"_id": f"d{i}", "title": labels[i % 4], "text": sentence(topics[i % 4], generator)}
        for i in range(size)
    ]
    queries = [{"_id": f"q{i}", "text": " ".join(topics[i % 4][:2])} for i in range(8)]
    beir = folder / "beir" / "topics"
    write_rows(beir / "corpus.jsonl", documents)
    write_rows(beir / "queries.jsonl", queries)
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [f"q{i}\td{j}\t1" for i in range(8) for j in range(i % 4, size, 4)]
    (beir / "qrels").mkdir()
    (beir / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
