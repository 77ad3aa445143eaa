"""How often functions are called, by whatever name and from wherever."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def counting(*functions: Callable[..., Any]) -> Iterator[Counter[str]]:
    """The calls of Python functions in this thread, by their names."""
    names = {function.__code__: function.__name__ for function in functions}
    calls: Counter[str] = Counter(dict.fromkeys(names.values(), 0))

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in names:
            calls[names[frame.f_code]] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
