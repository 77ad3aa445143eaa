"""What `from st_embfilter import …` offers, and what it costs."""

import subprocess
import sys

import pytest

import st_embfilter

HEAVY = ("torch", "transformers", "sentence_transformers", "huggingface_hub", "matplotlib")
SAID = f"""
import sys
print(*sorted(set(sys.modules) & {set(HEAVY)!r}))
"""


def loaded_by(script: str) -> list[str]:
    """The heavy packages that a new interpreter has loaded when a script ends."""
    done = subprocess.run(
        [sys.executable, "-c", script + SAID], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()


def test_every_name_is_there() -> None:
    for name in st_embfilter.__all__:
        assert getattr(st_embfilter, name) is not None
    assert {"PrefixEncoder", "encode_corpus", "transform_corpus"} <= set(st_embfilter.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = st_embfilter.nothing


def test_import_waits_for_nothing() -> None:
    assert loaded_by("import st_embfilter") == []


@pytest.mark.parametrize("command", [[], ["build"], ["evaluate"], ["ray", "encode"]])
def test_help_waits_for_nothing(command: list[str]) -> None:
    script = f"""
import sys
from st_embfilter.cli import main
sys.argv = ["st-embfilter", *{command!r}, "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    assert loaded_by(script) == []


def test_vectors_are_filtered_without_torch() -> None:
    assert loaded_by("from st_embfilter import VectorFilter, transform_file") == []
