"""Runs a script of examples/ as its command line does, in this process."""

import gc
import runpy
import sys

import pytest

from support.paths import ROOT


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    finally:
        gc.collect()  # What it had open, as the end of its process would close it.
