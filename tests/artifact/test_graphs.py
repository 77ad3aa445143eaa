"""Graphs for ONNX Runtime and OpenVINO: the same numbers, whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_embfilter import build_model, save_pretrained, verify
from st_embfilter.artifact import graphs as exporting
from st_embfilter.artifact.graphs import EXTERNAL_DATA, check_graph, export, onnx_runner
from st_embfilter.artifact.verification import load_plain
from st_embfilter.errors import MisuseError, OutputExistsError, VerificationError
from support.command_line import Run, fails
from support.models import tiny_llama

pytestmark = pytest.mark.slow


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "model"))


@pytest.fixture
def shallow(tmp_path: Path) -> Path:
    """Of one layer: a graph of many takes its time."""
    source = tiny_llama(tmp_path / "llm", num_hidden_layers=1)
    return save_pretrained(build_model(source, band="edge", device="cpu"), tmp_path / "shallow")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_graph_lies_in_the_artifact(runtime: str, run: Run, artifact: Path) -> None:
    done = run("export", artifact, runtime, "--json")
    assert done.returncode == 0, done.stderr
    main = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}[runtime]
    names = {file.name for file in (artifact / runtime).iterdir()}
    assert main in names and ("model.onnx" in names) == (runtime == "onnx")
    assert f'backend="{runtime}"' in (artifact / "README.md").read_text()
    verify(artifact)
    with pytest.raises(OutputExistsError):
        export(artifact, runtime)  # type: ignore[arg-type]


def test_large_weights_lie_beside_the_graph(shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LARGEST_FILE", 1000)
    folder = export(shallow, "onnx")
    assert {file.name for file in folder.iterdir()} == {"model.onnx", EXTERNAL_DATA}


def test_other_numbers_are_not_kept(shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(path: Path) -> Any:
        run = onnx_runner(path)
        return lambda features: run(features) + 1e-2

    monkeypatch.setattr(exporting, "onnx_runner", wrong)
    before = sorted(shallow.rglob("*"))
    with pytest.raises(VerificationError, match="other numbers"):
        export(shallow, "onnx")
    assert (
        sorted(shallow.rglob("*")) == before
        and "backend" not in (shallow / "README.md").read_text()
    )


def test_nan_is_noticed(artifact: Path) -> None:
    model = load_plain(artifact)
    states = exporting.TokenStates(model[0].auto_model).eval()

    def run(features: dict[str, Any]) -> Any:
        return np.full((*features["input_ids"].shape, 48), np.nan)

    with pytest.raises(VerificationError, match="off by nan"):
        check_graph(model, states, run, ["a"])


def test_misuse(run: Run, artifact: Path, tiny: Path, tmp_path: Path) -> None:
    fails(run("export", tmp_path / "none", "onnx"), 1, "no such folder")
    exact = build_model(tiny, band="edge", format="exact", device="cpu")
    with pytest.raises(MisuseError, match="the portable form"):
        export(save_pretrained(exact, tmp_path / "exact"), "onnx")
    with pytest.raises(MisuseError, match="tensorrt"):
        export(artifact, "tensorrt")  # type: ignore[arg-type]
