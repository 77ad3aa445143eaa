"""Evaluation: misuse and broken data are told in one line."""

import json
import shutil
from pathlib import Path

import pytest

from support.command_line import Run, fails
from support.evaluation_data import write_rows

pytestmark = pytest.mark.slow

pytest.importorskip("mteb", reason="needs st-embfilter[mteb]")


def test_bad_input(
    run: Run, whole_artifact: Path, tiny_artifact: Path, tiny: Path, sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = whole_artifact

    def start(*arguments: object) -> None:
        fails(run("evaluate", *arguments, "--out", out), *expected)

    expected = (2, "give either --benchmark or --tasks")
    start(model)
    start(model, "--benchmark", "paper", "--tasks", "STS12")
    expected = (2, "unknown task: 'STS66' not found. Did you mean: 'STS16'?")
    start(model, "--tasks", "STS66")
    expected = (2, "unknown benchmark: 'MTEB(eng, v9)'", "or: paper")
    start(model, "--benchmark", "MTEB(eng, v9)")
    expected = (2, "CMedQAv1-reranking has no data in eng: its languages are cmn (--languages)")
    start(model, "--tasks", "CMedQAv1-reranking")
    expected = (2, "holds no evaluation sets")
    start(model, "--data", tmp_path)
    expected = (2, "has no STS12: it has")
    start(model, "--data", sets, "--tasks", "STS12")
    expected = (2, "is not an embedding model: it has no modules.json", "st-embfilter build")
    start(tiny, "--data", sets)
    expected = (1, "no such folder, and not org/name on the hub")
    start(tmp_path / "none", "--data", sets)
    expected = (2, "keeps 24 of 48 dimensions, and can't give 32")
    start(tiny_artifact, "--data", sets, "--ratios", "1.5")
    expected = (2, "the head band needs all singular directions", "--ratio 1")
    start(tiny_artifact, "--data", sets, "--against", "head")
    expected = (2, "pca is fitted on text: give some with --fit FILE")
    start(model, "--data", sets, "--against", "pca")
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\n")
    expected = (2, "whitening to 24 dimensions needs more than 24 texts: lines.txt has 2")
    start(model, "--data", sets, "--against", "whitening", "--fit", lines)
    expected = (2, "filter ratio must be from 1")
    start(model, "--data", sets, "--ratios", "0.5")
    expected = (2, "'two' is not a number")
    start(model, "--data", sets, "--ratios", "two")
    expected = (2, "two models are called local/whole")
    start(model, model, "--data", sets, "--tasks", "STS16")


def test_broken_data(run: Run, whole_artifact: Path, sets: Path, tmp_path: Path) -> None:
    """What shows in a file's first line is said before anything is encoded, the rest by task."""

    def broken(change: str) -> Path:
        folder = tmp_path / change.replace("/", "-")
        shutil.copytree(sets, folder)
        return folder

    def start(data: Path, *words: str) -> None:
        fails(run("evaluate", whole_artifact, "--data", data, "--out", data / "out"), 1, *words)

    data = broken("split")
    (data / "mteb" / "AmazonCounterfactualClassification" / "train.jsonl").unlink()
    start(data, "AmazonCounterfactualClassification lacks its train: there is no")
    data = broken("qrels")
    (data / "beir" / "topics" / "qrels" / "test.tsv").unlink()
    start(data, "topics lacks its test: there is no")

    data = broken("column")
    write_rows(data / "mteb" / "STS16" / "test.jsonl", [{"sentence1": "a", "score": 1}])
    write_rows(
        data / "extra" / "TopicsClustering" / "test.jsonl", [{"text": "a", "label": "b"}, {}]
    )
    start(data, "2 of 4 tasks", "STS16: ", "lacks the column sentence2", "has a row without text")
    # The others are done, and in the tables.
    assert "| topics |" in (data / "out" / "scores.md").read_text()
    shutil.copytree(sets / "mteb" / "STS16", data / "mteb" / "STS16", dirs_exist_ok=True)
    shutil.copytree(sets / "extra", data / "extra", dirs_exist_ok=True)
    again = run("evaluate", whole_artifact, "--data", data, "--out", data / "out")
    assert again.returncode == 0, again.stderr
    assert "| STS16 |" in (data / "out" / "scores.md").read_text()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_beir_as_people_have_it(run: Run, whole_artifact: Path, tmp_path: Path, mark: str) -> None:
    """Ids that are numbers, titles that are null, grades as 1.0, Windows' line ends and mark."""
    folder = tmp_path / "data" / "beir" / "odd"
    (folder / "qrels").mkdir(parents=True)

    def write(name: str, lines: list[str]) -> None:
        content = mark + "".join(f"{line}\r\n" for line in lines)
        (folder / name).write_bytes(content.encode())

    documents = [
        {"_id": i, "title": None, "text": f"number {i} of the dogs and the cats"} for i in range(20)
    ]
    write("corpus.jsonl", [json.dumps(row) for row in documents])
    queries = [{"_id": i, "text": f"number {i} of the dogs and the cats"} for i in range(5)]
    write("queries.jsonl", [json.dumps(row) for row in queries])
    judged = [f"{i}\t{i}\t1.0" for i in range(5)]
    write("qrels/test.tsv", ["query-id\tcorpus-id\tscore", *judged])
    out = tmp_path / "out"
    done = run("evaluate", whole_artifact, "--data", tmp_path / "data", "--ratios", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    (score,) = json.loads((out / "scores.json").read_text(encoding="utf-8"))["scores"]
    assert score["score"] == pytest.approx(100, abs=1e-3)
