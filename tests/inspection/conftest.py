"""One report on a tiny model, which most of these tests look at."""

from pathlib import Path

import pytest
from support.markup import NASTY

from st_embfilter.inspection.figures import Inspection
from st_embfilter.inspection.run import SAMPLE_TEXTS, run_inspection
from st_embfilter.spectral.bands import BandChoice


@pytest.fixture(scope="session")
def report_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty texts, one of them hard to show."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [NASTY, *SAMPLE_TEXTS.read_text(encoding="utf-8").splitlines()[:19]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def inspection(tiny: Path, report_texts: Path) -> Inspection:
    """The figures of a report on the tiny model."""
    return run_inspection(
        str(tiny),
        texts=report_texts,
        table=None,
        most_texts=500,
        choice=BandChoice(ratio=2),
        prompt=None,
        revision=None,
        device="cpu",
        say=lambda _: None,
    )
