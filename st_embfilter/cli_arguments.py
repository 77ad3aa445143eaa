"""What the command line's arguments mean."""

import sys
from pathlib import Path
from typing import Any

from st_embfilter.errors import MisuseError


def parse_band(band: str) -> Any:
    """A band's name, or a list of indices."""
    if not band[:1].isdigit():
        return band
    try:
        return [int(index) for index in band.split(",")]
    except ValueError:
        raise MisuseError(f"--band {band}: give a name, or indices as 3,4,5") from None


def parse_dtype(dtype: str) -> Any:
    """``auto``, or a torch dtype."""
    import torch

    dtypes = {"auto": "auto", **{n: getattr(torch, n) for n in ("float32", "bfloat16", "float16")}}
    if dtype not in dtypes:
        raise MisuseError(f"--dtype {dtype}: use one of {', '.join(dtypes)}")
    return dtypes[dtype]


def read_lines(file: str) -> list[str]:
    """The lines of a UTF-8 file or of standard input.

    Raises:
        MisuseError: If there is no such file, it isn't UTF-8, or holds nothing.
    """
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        lines = content.decode("utf-8").split("\n")
    except OSError as error:
        raise MisuseError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MisuseError(f"{file} is not UTF-8: {error}") from error
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise MisuseError(f"{'standard input' if file == '-' else file} holds no text")
    return [line.removesuffix("\r") for line in lines]
