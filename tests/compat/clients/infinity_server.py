"""Runs Infinity on a free port until standard input ends; prints its address first."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [
    str(Path(sys.executable).with_name("infinity_emb")),
    *("v2", "--model-id", sys.argv[1], "--engine", "torch", "--device", "cpu"),
    *("--host", "127.0.0.1", "--port", str(port), "--no-model-warmup", *sys.argv[2:]),
]
environment = {**os.environ, "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
server = subprocess.Popen(command, stdout=sys.stderr, env=environment)
try:
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except (URLError, OSError):
            if server.poll() is not None:
                sys.exit("Infinity did not start")
            time.sleep(0.2)
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()
finally:
    server.terminate()
    server.wait(30)
