"""Processes that start sooner: an interpreter imports what takes long, and forks for each.

With it, tests/layout and tests/checkpoint/test_unembedding_from_hub.py take 78 and 81 s in two
rounds on two cores, and 100 and 105 s with a new interpreter for each process.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

# Most of what sentence-transformers imports, and nothing that reads the environment: the hub's
# address and cache are read from it once.
LIBRARIES = ("torch._dynamo", "sklearn.metrics")
SECONDS = 300


class Prefork:
    """An interpreter with modules imported, that runs scripts in forks of itself."""

    def __init__(self, python: str | Path, modules: Iterable[str], env: Mapping[str, str]) -> None:
        # It ends when its input does, that is with this process.
        self.process = subprocess.Popen(
            [python, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )

    def run(
        self, *arguments: object, env: Mapping[str, str], cwd: str | Path = "."
    ) -> CompletedProcess[str]:
        """As ``subprocess.run([python, *arguments])``; a script is a path, or ``-m`` and a module.

        A process that takes more than SECONDS ends with SIGALRM.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        words = list(map(str, arguments))
        with tempfile.TemporaryDirectory() as folder:
            said = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            request = {"arguments": words, "env": dict(env), "cwd": str(cwd), "said": said}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            output, errors = (Path(path).read_text(encoding="utf-8") for path in said)
        return CompletedProcess(words, code, output, errors)


@cache
def prefork(python: str | Path, *modules: str, **variables: str) -> Prefork:
    """One for all tests; without modules, one for processes of whatever environment."""
    return Prefork(python, modules or LIBRARIES, {**clean_environment(), **variables})


def clean_environment() -> dict[str, str]:
    """The environment without what would lead an interpreter to this checkout."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def wait_for_request() -> dict[str, Any]:
    """Comes back in a fork alone, with what it is to run."""
    for line in sys.stdin:
        if not (process := os.fork()):
            return dict(json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def become(request: dict[str, Any]) -> None:
    """Take a new process's place: its environment, folder, files and arguments."""
    for number, path in enumerate(request["said"], start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.alarm(SECONDS)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    request = wait_for_request()
    become(request)
    script, *arguments = request["arguments"]
    if script == "-m":
        script, *arguments = arguments
        sys.argv = [script, *arguments]
        sys.path[0] = ""
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [script, *arguments]
        sys.path[0] = str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")
