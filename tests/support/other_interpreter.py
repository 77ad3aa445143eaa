"""An artifact's embeddings from another interpreter, most often one without the package."""

import json
from pathlib import Path

import numpy as np

from support.hub_server import Hub
from support.prefork import clean_environment, prefork

TEXTS = ["one text", "another, somewhat longer text with a comma", "dog " * 700]


def embed(
    python: Path | str,
    path: Path,
    prompt_name: str = "",
    hub: Hub | None = None,
    **options: object,
) -> tuple[np.ndarray, str]:
    """The texts' embeddings and all that was said, from another interpreter.

    With a hub, the folder is that hub's ``org/model``, and what is fetched goes beside it.
    """
    if hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": f"{path}-home", "NO_PROXY": "127.0.0.1"}
        interpreter = prefork(python)
    else:
        environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{python}-home"}
        interpreter = prefork(python, "sentence_transformers", **environment)
    result = interpreter.run(
        Path(__file__).with_name("load_artifact.py"),
        "org/model" if hub else path,
        prompt_name,
        json.dumps(options),
        json.dumps(TEXTS),
        env={**clean_environment(), **environment},
        cwd=path.parent,
    )
    assert result.returncode == 0, result.stderr
    return np.array(json.loads(result.stdout), dtype=np.float32), result.stderr
