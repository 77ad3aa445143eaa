"""How the commands speak: results on stdout, everything else on stderr."""

import sys

from rich.console import Console

from st_embfilter.errors import MissingDependencyError

# What is said to a person goes to stderr: stdout is for --json.
# A path stays in one piece, where the terminal is narrow or there is none.
console = Console(stderr=True, highlight=False, soft_wrap=True)


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
