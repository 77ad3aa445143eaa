"""One report on a tiny model, which most of these tests look at."""

from pathlib import Path

import pytest

from st_embfilter.inspection.figures import Inspection
from st_embfilter.inspection.run import run_inspection
from st_embfilter.inspection.subject import find_subject
from st_embfilter.pipeline.automatic import SHIPPED_TEXTS
from st_embfilter.spectral.bands import BandChoice
from support.markup import NASTY


@pytest.fixture(scope="session")
def report_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty texts, one of them hard to show."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [NASTY, *SHIPPED_TEXTS.read_text(encoding="utf-8").splitlines()[:19]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def inspection(tiny: Path, report_texts: Path) -> Inspection:
    """The figures of a report on the tiny model."""
    return run_inspection(
        find_subject(str(tiny), choice=BandChoice(ratio=2), prompt=None, revision=None),
        texts=report_texts,
        table=None,
        most_texts=500,
        device="cpu",
        say=lambda _: None,
    )
