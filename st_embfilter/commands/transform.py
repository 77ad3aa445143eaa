"""``st-embfilter transform``: the filter for vectors that are stored already."""

import json
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated, Literal

import typer

from st_embfilter.commands.options import DimsOption, FilterOption, JsonOption, NormalizeOption
from st_embfilter.commands.terminal import console


def transform(
    source: Annotated[
        str,
        typer.Argument(
            help="Raw embeddings: .npy, .parquet, .arrow, .feather, .lance, or a FAISS index as "
            ".faiss or .index; a path, or a URI as s3://…",
            metavar="IN",
        ),
    ],
    filter: FilterOption,
    out: Annotated[
        str,
        typer.Option(
            help="The output, of the same format: a path, or a URI as s3://…, whose work lies in "
            "~/.cache/st-embfilter until it is put there."
        ),
    ],
    dims: DimsOption = None,
    dtype: Annotated[
        Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"],
        typer.Option(
            help="How numbers are stored. int8, uint8, binary and ubinary are sentence-"
            "transformers': FAISS takes uint8 and ubinary (packed bits), usearch int8 and binary."
        ),
    ] = "float32",
    normalize: NormalizeOption = False,
    nan: Annotated[
        Literal["fail", "keep", "drop"],
        typer.Option(help="Rows with NaN or infinity: an error, rows of NaN, or left out."),
    ] = "fail",
    column: Annotated[
        str | None, typer.Option(help="The column of vectors, where there are several.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Filter stored embeddings of a language model: no text is encoded again.

    They must be raw: what the artifact's model gives without its last module, the filter.
    A run that was stopped goes on where it was when the same command is given again.

    [dim]st-embfilter transform raw.parquet --filter smollm2-embedding --out new.parquet[/dim]
    """
    from st_embfilter.vectors.transform import transform_file

    done = transform_file(
        source,
        filter,
        out,
        dims=dims,
        dtype=dtype,
        normalize=normalize,
        nan=nan,
        column=column,
    )
    console.print(
        f"[green]Done[/green]: {out}, {done.rows:,} vectors × {done.dimensions} dimensions, "
        f"{done.precision}"
    )
    if done.non_finite:
        shown = ", ".join(map(str, done.first_non_finite))
        more = ", …" if done.non_finite > len(done.first_non_finite) else ""
        became = (
            f"left out, see {PurePosixPath(done.dropped).name}"
            if done.dropped
            else "kept as rows of NaN"
        )
        console.print(
            f"{done.non_finite:,} rows held NaN or infinity ({shown}{more}, from 0): {became}"
        )
    if done.ranges:
        console.print(f"Queries need the same ranges: {PurePosixPath(done.ranges).name}")
    for note in done.notes:
        console.print(note)
    if as_json:
        print(json.dumps(asdict(done), default=str))
