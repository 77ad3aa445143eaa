"""How the commands speak: results on stdout, everything else on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from st_embfilter.errors import MissingDependencyError

# What is said to a person goes to stderr: stdout is for --json.
# A path stays in one piece, where the terminal is narrow or there is none.
console = Console(stderr=True, highlight=False, soft_wrap=True)


# In a log, how far a step is comes at most so often.
SECONDS_BETWEEN_LINES = 30


@contextmanager
def progress_for_log() -> Iterator[None]:
    """Where stderr is no terminal, have progress bars write lines inside the ``with``.

    One when a step begins, one at most every half minute, and one when it ends; those of
    transformers, huggingface_hub and mteb too. There they would write one line of all their states.
    """
    if sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    display = tqdm.display

    def write_line(bar: "tqdm[Any]", msg: str | None = None, pos: int | None = None) -> None:
        ends = pos is not None  # As close() calls it, which ends the line itself.
        since = time.monotonic() - vars(bar).get("written", -SECONDS_BETWEEN_LINES)
        if msg is None and (ends or since >= SECONDS_BETWEEN_LINES):
            vars(bar)["written"] = time.monotonic()
            bar.fp.write(f"{bar}" if ends else f"{bar}\n")

    tqdm.display = write_line  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        tqdm.display = display  # type: ignore[method-assign]


def fail(message: str, code: int) -> None:
    """Say what is wrong in one line, and end."""
    line = " ".join(message.split())
    print(f"st-embfilter: error: {line}", file=sys.stderr)
    sys.exit(code)


def import_mteb() -> None:
    """Raise :class:`MissingDependencyError` if mteb isn't installed."""
    try:
        import mteb  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "evaluation needs mteb: pip install 'st-embfilter[mteb]' (Python 3.11 or newer)"
        ) from error
