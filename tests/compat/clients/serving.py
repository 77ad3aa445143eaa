"""Runs a server until standard input ends; prints its address when it is ready."""

import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serve(command: list[str], port: int, environment: dict[str, str], name: str) -> None:
    server = subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, **environment})
    try:
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (URLError, OSError):
                if server.poll() is not None:
                    sys.exit(f"{name} did not start")
                time.sleep(0.2)
        print(f"http://127.0.0.1:{port}", flush=True)
        sys.stdin.read()
    finally:
        server.terminate()
        server.wait(30)
