"""Runs Infinity: MODEL [its options]."""

import sys
from pathlib import Path

from serving import free_port, serve

port = free_port()
command = [
    str(Path(sys.executable).with_name("infinity_emb")),
    *("v2", "--model-id", sys.argv[1], "--engine", "torch", "--device", "cpu"),
    *("--host", "127.0.0.1", "--port", str(port), "--no-model-warmup", *sys.argv[2:]),
]
quiet = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
serve(command, port, quiet, "Infinity")
