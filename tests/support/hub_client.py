"""Run in a process of its own, as the hub's address and cache are read from the environment once.

Takes a JSON list of calls, prints a JSON list of what came of each.
"""

import json
import sys
import traceback
from typing import Any
from unittest import mock

from huggingface_hub import snapshot_download
from transformers import AutoConfig

from st_embfilter import FilterModule, build_model
from st_embfilter.checkpoint.unembedding import Unembedding


def call(kind: str, source: str, revision: str | None) -> dict[str, Any]:
    if kind == "unembedding":
        unembedding = Unembedding.from_pretrained(source, revision)
        rows = [row for block in unembedding.row_blocks() for row in block.tolist()]
        return {"revision": unembedding.revision, "sha256": unembedding.sha256, "rows": rows}
    if kind == "filter":
        module = FilterModule.from_pretrained(source, revision=revision, k=12)
        return {"provenance": module.provenance, "matrix": module.linear.weight.tolist()}
    if kind == "model":
        model = build_model(source, band="edge", revision=revision, k=12, device="cpu")
        return {"embedding": model.encode("a text").tolist()}
    if kind == "config":
        return {"width": AutoConfig.from_pretrained(source, revision=revision).hidden_size}
    assert kind == "snapshot"
    return {"folder": snapshot_download(source, revision=revision)}


def outcome(kind: str, source: str, revision: str | None = None) -> dict[str, Any]:
    try:
        return call(kind, source, revision)
    except Exception as error:
        traceback.print_exc()
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    # The hub's library waits longer and longer between attempts.
    with mock.patch("time.sleep"):
        print(json.dumps([outcome(*arguments) for arguments in json.loads(sys.argv[1])]))
