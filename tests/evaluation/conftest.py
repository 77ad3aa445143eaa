"""What the tests of the evaluation share."""

from pathlib import Path

import pytest

from st_embfilter import build_model, save_pretrained
from support.evaluation_data import write_sets


@pytest.fixture(scope="session")
def whole_artifact(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All directions of the tiny model: every τ, and every baseline."""
    model = build_model(tiny, band="edge", ratio=1, device="cpu")
    return save_pretrained(model, tmp_path_factory.mktemp("artifacts") / "whole")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation set of each kind."""
    return write_sets(tmp_path_factory.mktemp("data"))
