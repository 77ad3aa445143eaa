"""What docs/results.md was measured on, from the evaluation sets as they are.

    python benchmarks/prepare_data.py DATA OUT

OUT/data is DATA with Cranfield's queries numbered as its judgements count them, and
OUT/all-sets.txt has the texts of all test sets, to fit baselines on. Prints what TF-IDF makes of
Cranfield before and after.
"""

import argparse
import json
import shutil
from pathlib import Path

import pytrec_eval
from sklearn.feature_extraction.text import TfidfVectorizer

from st_embfilter.evaluation.local_data import read_judgements


def main() -> None:
    """Write the data and the texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    given = arguments.data / "beir" / "cranfield"
    renumbered = arguments.out / "data" / "beir" / "cranfield-renumbered"
    for layout in ("mteb", "extra"):
        shutil.copytree(arguments.data / layout, arguments.out / "data" / layout)
    shutil.copytree(given, renumbered)
    queries = [{**row, "_id": str(i)} for i, row in enumerate(rows(given / "queries.jsonl"), 1)]
    # Not over the copy, which may be as read-only as what it was copied from.
    (renumbered / "queries.jsonl").unlink()
    lines = "".join(json.dumps(row) + "\n" for row in queries)
    (renumbered / "queries.jsonl").write_text(lines, encoding="utf-8")
    texts = sorted(text for text in all_texts(arguments.out / "data") if is_line(text))
    (arguments.out / "all-sets.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    print(f"{len(texts):,} texts in {arguments.out}/all-sets.txt\n")
    print("| Cranfield | TF-IDF, nDCG@10 × 100 |\n|---|---:|")
    print(
        f"| as it is | {100 * tf_idf(given):.1f} |\n| renumbered | {100 * tf_idf(renumbered):.1f} |"
    )


def rows(path: Path) -> list[dict[str, str]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def document(row: dict[str, str]) -> str:
    """As mteb gives it to a model."""
    return f"{row['title']} {row['text']}".strip()


def all_texts(data: Path) -> set[str]:
    """Of every test set, as a model gets them; of the retrieval task, the documents."""
    texts = {document(row) for path in data.glob("beir/*/corpus.jsonl") for row in rows(path)}
    for path in (*data.glob("mteb/*/test.jsonl"), *data.glob("extra/*/test.jsonl")):
        for row in rows(path):
            texts |= {row[key] for key in ("sentence1", "sentence2", "text") if key in row}
    return texts


def is_line(text: str) -> bool:
    """Whether a text can stand on a line of its own."""
    return bool(text.strip()) and "\n" not in text and "\r" not in text


def tf_idf(folder: Path) -> float:
    """The nDCG@10 of cosines of TF-IDF vectors."""
    documents, queries = rows(folder / "corpus.jsonl"), rows(folder / "queries.jsonl")
    vectorizer = TfidfVectorizer()
    corpus = vectorizer.fit_transform([document(row) for row in documents])
    cosines = (vectorizer.transform([row["text"] for row in queries]) @ corpus.T).toarray()
    run = {
        query["_id"]: {row["_id"]: float(value) for row, value in zip(documents, line, strict=True)}
        for query, line in zip(queries, cosines, strict=True)
    }
    judged = read_judgements(folder / "qrels" / "test.tsv")
    scores = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10"}).evaluate(run)
    return sum(score["ndcg_cut_10"] for score in scores.values()) / len(scores)


if __name__ == "__main__":
    main()
