"""`make gpu`: all of it runs on the processor in small, and without a GPU it says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.paths import ROOT

pytestmark = pytest.mark.slow


def run(*arguments: str | Path) -> str:
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "run.py", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_all_of_it_in_small(tmp_path: Path) -> None:
    printed = run("--small", "--out", tmp_path)
    assert printed.strip() == (tmp_path / "tables.md").read_text().strip()
    tables = json.loads((tmp_path / "figures.json").read_text())["tables"]
    (spectrum,) = tables["The spectrum of W_U"]
    assert spectrum["bands off the processor's"] < 1e-6
    for line in tables["Embeddings against the processor's"]:
        assert line["off by"] < (1e-5 if line["dtype"] == "float32" else 5e-2), line
    encoding = tables["Encoding"]
    short, long = sorted({line["tokens a text"] for line in encoding})
    assert 20 < short < 32 and long == 512
    assert {line["way"] for line in encoding} > {"sentence-transformers", "the reference's way"}
    assert all(line["texts/s"] > 0 and line["off by"] < 5e-2 for line in encoding)
    assert tables["Encoding, compiled"][0]["still reused"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu(tmp_path: Path) -> None:
    printed = run("--out", tmp_path / "out")
    assert printed.startswith("no GPU here") and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()
