"""Options that several commands have, each said once."""

from typing import Annotated, Any

import typer

from st_embfilter.errors import MisuseError

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
RatioOption = Annotated[
    float | None,
    typer.Option(
        help="The filter ratio τ: of d dimensions, d // τ are kept. Default: 2.",
        show_default=False,
    ),
]
KeptOption = Annotated[
    int | None,
    typer.Option("--dims", help="The number of kept dimensions, instead of --ratio."),
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub repository.")
]
DimsOption = Annotated[
    int | None, typer.Option("--dims", help="Keep the first so many dimensions: a larger τ.")
]
NormalizeOption = Annotated[
    bool, typer.Option("--normalize", help="Scale every embedding to length 1.")
]
FilterOption = Annotated[
    str, typer.Option(help="The artifact with the filter: a folder, or a model on the hub.")
]
PromptNameOption = Annotated[
    str | None,
    typer.Option(help="query or document, for a model that has prompts of its own for these."),
]
BatchSizeOption = Annotated[
    int,
    typer.Option(min=1, help="Texts of 16 tokens (GPU: 256) a forward pass; fewer longer ones."),
]
BackboneDtypeOption = Annotated[
    str, typer.Option(help="The backbone's: auto (as stored), float32, bfloat16, float16.")
]
DtypeOption = Annotated[
    str, typer.Option(help="To compute in: auto (as saved), float32, bfloat16 (fast), float16.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="As in PyTorch: cpu, cuda, cuda:1, mps. Default: the best.")
]


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


def parse_band(band: str) -> Any:
    """A band's name, or a list of indices."""
    if not band[:1].isdigit():
        return band
    try:
        return [int(index) for index in band.split(",")]
    except ValueError:
        raise MisuseError(f"--band {band}: give a name, or indices as 3,4,5") from None
