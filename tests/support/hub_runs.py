"""Command lines and uploads in processes of their own, which know a hub on this machine alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from support.hub_server import Hub
from support.prefork import prefork

CLIENT = Path(__file__).parent / "publish_client.py"
NAME = "org/tiny-embedding"


def client_environment(hub: Hub, home: Path, token: str | None = "hf_writes") -> dict[str, str]:
    """Of a process that takes this hub for the only one."""
    dropped = ("proxy", "hf_", "transformers_offline")
    kept = {k: v for k, v in os.environ.items() if not any(w in k.lower() for w in dropped)}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        **({"HF_TOKEN": token} if token else {}),
    }


def run(
    hub: Hub, home: Path, *arguments: object, token: str | None = "hf_writes"
) -> CompletedProcess[str]:
    """The real command line in a process of its own."""
    environment = client_environment(hub, home, token)
    return prefork(sys.executable).run("-m", "st_embfilter", *arguments, env=environment)


def start(
    hub: Hub,
    home: Path,
    folder: Path,
    name: str = NAME,
    token: str | None = "hf_writes",
    **options: Any,
) -> "subprocess.Popen[str]":
    """What publishing does after verification, in a process that starts at once."""
    return subprocess.Popen(
        [sys.executable, str(CLIENT), str(folder), name, json.dumps(options)],
        env=client_environment(hub, home, token),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def send(hub: Hub, home: Path, folder: Path, name: str = NAME, **options: Any) -> dict[str, Any]:
    """As it, to the end: what came of it."""
    output, said = start(hub, home, folder, name, **options).communicate(timeout=120)
    assert output, said
    outcome: dict[str, Any] = json.loads(output)
    return outcome


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def check_failure(result: CompletedProcess[str], code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("st-embfilter: error: ") and "Traceback" not in result.stderr
    for word in words:
        assert word in last, last


def content(folder: Path, name: str) -> bytes:
    """A file as it is on the hub: the card has the repository's name in it."""
    return (folder / name).read_bytes().replace(b"ORG/NAME", NAME.encode())
