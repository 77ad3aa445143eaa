"""Lines of text: the one place that reads them.

A file of texts, on this machine or in an object store, is UTF-8, one text a line; what ends a line
is a line feed, with or without a carriage return in front, and nothing else. A byte order mark at
the start is no text. Where every line has a row in the output (:func:`read_lines`), a blank line is
a text as any other: the empty one. Where the file is a sample of texts (:func:`read_sample`), blank
lines are left out.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from st_embfilter.errors import MisuseError, StoreError
from st_embfilter.store_errors import meaning
from st_embfilter.stores import Place, is_uri

STANDARD_INPUT = "-"
STORE_READ_BYTES = 1 << 23


def read_lines(file: str | Path) -> list[str]:
    """Every line of a file, or of standard input (``-``), blank ones too.

    Raises:
        MisuseError: If there is no such file, it isn't UTF-8, or holds nothing.
        StoreError: If it is in an object store that doesn't give it.
    """
    lines = list(_lines(file))
    if not lines:
        raise _no_text(file)
    return lines


def read_sample(file: str | Path) -> Iterator[str]:
    """The lines that aren't blank, without the spaces around them, one after the other.

    Raises:
        MisuseError: If there is no such file, it isn't UTF-8, or holds no text.
    """
    empty = True
    for line in _lines(file):
        if text := line.strip():
            empty = False
            yield text
    if empty:
        raise _no_text(file)


def _lines(file: str | Path) -> Iterator[str]:
    try:
        with _opened(file) as lines:
            for number, line in enumerate(lines):
                # Windows' editors put a mark in front of the first.
                text = line.decode("utf-8" if number else "utf-8-sig")
                yield text.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        if refusal := meaning(error):
            raise StoreError(f"{file}: {refusal}") from error
        raise MisuseError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MisuseError(f"{file} is not UTF-8: {error}") from error


def _opened(file: str | Path) -> AbstractContextManager[BinaryIO]:
    if file == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    if is_uri(file):
        return BufferedReader(Place.of(file).open(), STORE_READ_BYTES)
    return Path(file).open("rb")


def _no_text(file: str | Path) -> MisuseError:
    return MisuseError(f"{'standard input' if file == STANDARD_INPUT else file} holds no text")
