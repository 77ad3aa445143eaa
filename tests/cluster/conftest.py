"""What the tests of corpora share."""

from pathlib import Path

import pytest


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    # Without pyarrow these tests are skipped, each by its own file.
    from support.corpora import save_corpus, vectors_table

    return save_corpus(tmp_path / "vectors", vectors_table)
