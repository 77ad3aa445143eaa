"""What the commands share: how they speak, and options that several have."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from st_embfilter.errors import MissingDependencyError, MisuseError

# What is said to a person goes to stderr: stdout is for --json.
# A path stays in one piece, where the terminal is narrow or there is none.
console = Console(stderr=True, highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DimsOption = Annotated[
    int | None, typer.Option("--dims", help="Keep the first so many dimensions: a larger τ.")
]
NormalizeOption = Annotated[
    bool, typer.Option("--normalize", help="Scale every embedding to length 1.")
]
PromptNameOption = Annotated[
    str | None,
    typer.Option(help="query or document, for a model that has prompts of its own for these."),
]
BatchSizeOption = Annotated[
    int,
    typer.Option(min=1, help="Texts of 32 tokens (GPU: 256) a forward pass; fewer longer ones."),
]
DtypeOption = Annotated[
    str, typer.Option(help="To compute in: auto (as saved), float32, bfloat16 (fast), float16.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="As in PyTorch: cpu, cuda, cuda:1, mps. Default: the best.")
]


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


def split(names: str | None) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def parse_dtype(dtype: str) -> Any:
    """``auto``, or a torch dtype."""
    import torch

    dtypes = {"auto": "auto", **{n: getattr(torch, n) for n in ("float32", "bfloat16", "float16")}}
    if dtype not in dtypes:
        raise MisuseError(f"--dtype {dtype}: use one of {', '.join(dtypes)}")
    return dtypes[dtype]
