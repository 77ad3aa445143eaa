"""Every example runs, and so does the README's."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from support.examples import run
from support.llama_server import llama_server
from support.paths import ROOT


def test_quickstart(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny: Path,
    tmp_path: Path,
) -> None:
    run(monkeypatch, "quickstart.py", tiny, tmp_path / "out")
    assert "(3, 24)" in capsys.readouterr().out


def test_append_filter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    run(monkeypatch, "append_filter.py", tiny)
    assert capsys.readouterr().out.split("\n")[:2] == ["raw:      (48,)", "filtered: (12,)"]


def test_choose_dimensions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_artifact: Path
) -> None:
    run(monkeypatch, "choose_dimensions.py", tiny_artifact)
    assert capsys.readouterr().out.count("dimensions") == 3


def test_queries_and_documents(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny: Path,
    tmp_path: Path,
) -> None:
    run(monkeypatch, "queries_and_documents.py", tiny, tmp_path / "out")
    assert "[1, 2]" in capsys.readouterr().out


def test_llama_cpp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_artifact: Path
) -> None:
    model = SentenceTransformer(str(tiny_artifact), device="cpu")
    with llama_server(model, one_file=False) as url:
        run(monkeypatch, "llama_cpp.py", tiny_artifact, url)
    shape, cosines = capsys.readouterr().out.splitlines()
    assert shape == "(3, 24)"
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell."]
    expected = model.encode(texts, normalize_embeddings=True)
    # A string's tokens are the exact form's, where a text ends in punctuation.
    np.testing.assert_allclose(json.loads(cosines), expected @ expected.T, atol=0.3)


def test_search_index(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_artifact: Path
) -> None:
    pytest.importorskip("faiss", reason="needs the extra vectors")
    run(monkeypatch, "search_index.py", tiny_artifact, 16)
    assert re.fullmatch(r"int8:   \[.+\]\nbinary: \[.+\]\n", capsys.readouterr().out)


def test_migrate_faiss_index(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_artifact: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("faiss")
    run(monkeypatch, "migrate_faiss_index.py", tiny_artifact, tmp_path)
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == "48 dimensions before, 24 after"
    assert lines[1] == lines[2] == lines[3] != ""


def test_the_search_docs_example(tiny_artifact: Path) -> None:
    pytest.importorskip("faiss", reason="needs the extra vectors")
    document = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", document, flags=re.DOTALL)
    code = code.replace("smollm2-embedding", str(tiny_artifact)).replace("144", "16")
    names: dict[str, Any] = {"texts": ["A man is eating.", "The moon is full."]}
    exec(code, names)
    assert names["index"].search(names["vectors"], 1)[1].tolist() == [[0], [1]]


def test_the_artifact_docs_reader(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/artifact.md tells is enough to embed as the builder did."""
    document = (ROOT / "docs" / "artifact.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", document, flags=re.DOTALL)
    exec(code.replace("smollm2-embedding", str(tiny_artifact)), {})
    differences = [float(line) for line in capsys.readouterr().out.split()]
    assert len(differences) == 5 and max(differences) <= 1e-4


def test_every_example_is_tested() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert examples <= set(re.findall(r'"(\w+\.py)"', tests))


def test_the_readmes_example(monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(tiny)), {})
    assert (tmp_path / "smollm2-embedding" / "modules.json").is_file()
