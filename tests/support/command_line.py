"""What the fixture ``run`` gives back, and what is asked of it when a command fails."""

from collections.abc import Callable
from dataclasses import dataclass

Run = Callable[..., "Result"]


@dataclass(frozen=True)
class Result:
    """What a command line gives back."""

    returncode: int
    stdout: str
    stderr: str


def fails(result: Result, code: int, *words: str) -> None:
    """One line that says what is wrong, the right exit code, and no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
    message = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(message) == 1, result.stderr
    for word in words:
        assert word in message[0], message[0]
