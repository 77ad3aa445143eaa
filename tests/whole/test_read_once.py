"""A command finds its model once and reads each of its files once, and carries what it found."""

from pathlib import Path

import pytest
from gguf import GGUFReader

from st_embfilter.artifact.recipes import read_recipe
from st_embfilter.checkpoint.causal_config import load_config
from st_embfilter.checkpoint.source import resolve_source
from support.command_line import Run
from support.counting import counting

pytestmark = pytest.mark.slow

READING = (resolve_source, load_config, read_recipe, GGUFReader.__init__)


def test_build(run: Run, tiny: Path, tmp_path: Path) -> None:
    recipe, spectrum = tmp_path / "recipe.yaml", tmp_path / "spectrum.safetensors"
    recipe.write_text(f"source: {tiny}\nformat: exact\ncard: {{license: mit}}\n")
    arguments = ("build", "--band", "edge", tiny, "--out", tmp_path / "out", "--recipe", recipe)
    with counting(*READING) as calls:
        done = run(*arguments, "--spectrum", spectrum)
    assert done.returncode == 0, done.stderr
    assert calls == {"resolve_source": 1, "load_config": 1, "read_recipe": 1, "__init__": 0}
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_build_of_a_gguf_file(run: Run, smollm2: Path, tmp_path: Path) -> None:
    with counting(*READING) as calls:
        done = run("build", "--band", "edge", smollm2, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert calls == {"resolve_source": 1, "load_config": 0, "read_recipe": 0, "__init__": 1}
    assert "license: apache-2.0" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["encode", "transform"])
def test_what_needs_no_language_model_looks_for_none(
    run: Run, tiny_artifact: Path, tmp_path: Path, command: str
) -> None:
    texts, raw, out = tmp_path / "texts.txt", tmp_path / "raw.npy", tmp_path / "out.npy"
    texts.write_text("one\ntwo\n")
    assert run("encode", tiny_artifact, texts, "--out", raw).returncode == 0
    arguments = {
        "encode": ("encode", tiny_artifact, texts),
        # Half as wide as the filter takes: read as far as that is seen.
        "transform": ("transform", raw, "--filter", tiny_artifact),
    }
    with counting(*READING) as calls:
        run(*arguments[command], "--out", out)
    assert not any(calls.values())


def test_inspect(run: Run, tiny: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\nanother one\na third\n")
    with counting(*READING) as calls:
        done = run("inspect", tiny, "--out", tmp_path / "out", "--texts", texts)
    assert done.returncode == 0, done.stderr
    assert calls == {"resolve_source": 1, "load_config": 1, "read_recipe": 0, "__init__": 0}
