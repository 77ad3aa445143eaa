"""The compatibility matrix's servers: start each, and ask `verify` about it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from artifacts import break_copy, gguf_file
from matrix import Matrix
from servers import NO_START, SERVERS, Served

from st_embfilter.artifact.server import EmbeddingServer
from support.comparing import relative

HERE = Path(__file__).parent
AT_ONCE = 4


def run_served(matrix: Matrix, row: Served, folders: dict[str, Path]) -> None:
    """One row: `verify --url` against a server."""
    label, packages, _ = SERVERS[row.server]
    versions = matrix.versions(row.server, packages)
    artifact, served = folders[row.model], what_is_served(matrix, row, folders)
    try:
        with running(matrix, row, served) as url:
            checked = matrix.call(
                *(sys.executable, "-m", "st_embfilter", "verify", artifact, "--json"),
                *("--url", f"{url}{'/v1' if '/v1' in row.options else ''}", *row.verify),
            )
            apart = together_or_apart(url, artifact) if row.file == "one file" else None
        if checked.stdout:
            first, *others = (check["detail"] for check in json.loads(checked.stdout))
            detail = "; ".join([first.partition(", ")[2], *others])  # Without the address.
        else:
            detail = checked.stderr.strip().splitlines()[-1]
        right = checked.returncode == (0 if row.ok else 1) and row.said in detail
        if apart is not None:
            detail += f"; {AT_ONCE} at once off by {apart:.1e} from one at a time"
            right &= apart <= row.apart
    except NotStartedError as error:
        detail = f"{label} {NO_START}: {error}"
        right = row.said == NO_START
    matrix.add(row.name, versions, row.call, row.model, detail.replace("|", "/"), ok=right)


def together_or_apart(url: str, artifact: Path) -> float:
    """How far embeddings of texts that a server computes at once are from each alone."""
    server = EmbeddingServer(url)
    probes = json.loads((artifact / "embfilter.json").read_text())["probes"]["texts"]
    # But the longest, which as a string is more than the server takes.
    texts = sorted(probes, key=len)[:AT_ONCE]
    one_by_one = [server.embed(text) for text in texts]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        at_once = list(pool.map(server.embed, texts))
    return relative(np.array(at_once), np.array(one_by_one))


def what_is_served(matrix: Matrix, row: Served, folders: dict[str, Path]) -> str:
    """The name of what is on the hub, or the path of a file or a broken copy."""
    artifact = folders[row.model]
    if row.fault:
        folder = matrix.work / "broken" / f"{row.server}-{row.fault.replace(' ', '-')}"
        return str(break_copy(artifact, folder, row.fault))
    if not row.file:
        return row.model
    language_model = gguf_file(row.model, matrix.work)
    if row.file == "language model":
        return str(language_model)
    path = artifact.with_suffix(".gguf")
    command = (sys.executable, "-m", "st_embfilter", "export", artifact, "gguf")
    made = matrix.call(*command, "--model", language_model, "--out", path)
    assert made.returncode == 0, made.stderr
    return str(path)


class NotStartedError(Exception):
    """A server ended before it listened."""


@contextmanager
def running(matrix: Matrix, row: Served, served: str) -> Iterator[str]:
    """A server, while the ``with`` lasts.

    Raises:
        NotStartedError: With its last words.
    """
    environment, log = matrix.environment(), matrix.work / "server.log"
    client = HERE / "clients" / f"{row.server}_server.py"
    with (
        log.open("w") as said,
        subprocess.Popen(
            [matrix.python(row.server), client, served, *row.options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=matrix.work,
        ) as server,
    ):
        assert server.stdin and server.stdout
        if not (url := server.stdout.readline().strip()):
            raise NotStartedError(last_error(log.read_text(errors="replace")))
        yield url
        server.stdin.close()
    shutil.rmtree(environment["HF_HOME"])


def last_error(log: str) -> str:
    """The last line of a log that names an error, cut."""
    named = [line for line in log.splitlines() if re.search(r"[A-Z]\w*Error\b", line)]
    return re.sub(r"^.*?(?=[A-Z]\w*Error)", "", named[-1])[:200] if named else "no reason given"
