"""``st-embfilter ray``: a corpus encoded or filtered by several processes, GPUs or machines."""

import json
import sys
from typing import Annotated, Any, TextIO

import typer

from st_embfilter.commands.options import (
    BatchSizeOption,
    DimsOption,
    DtypeOption,
    FilterOption,
    JsonOption,
    NormalizeOption,
    PromptNameOption,
)
from st_embfilter.commands.terminal import console

app = typer.Typer(
    help="Encode or transform a corpus with Ray: several processes, GPUs or machines.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Corpus = Annotated[
    str,
    typer.Argument(
        metavar="IN", help="A Parquet file, or a folder of them: a path, or a URI as s3://…"
    ),
]
Out = Annotated[
    str,
    typer.Option(help="The folder of Parquet files to make: a path, or a URI as s3://…"),
]
PartRows = Annotated[
    int, typer.Option(min=1, help="The most rows of an output file: what a lost worker costs.")
]
Count = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes. Default: as many as CPUs or GPUs allow."),
]
Cpus = Annotated[int, typer.Option(min=1, help="CPUs, and threads, of each process.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster, as auto or ray://head:10001. Default: $RAY_ADDRESS, or this machine."
    ),
]


@app.command()
def encode(
    model: Annotated[
        str, typer.Argument(help="An artifact's folder that all machines see, or a hub name.")
    ],
    source: Corpus,
    out: Out,
    column: Annotated[str, typer.Option(help="The column of texts.")],
    dims: DimsOption = None,
    normalize: NormalizeOption = False,
    prompt_name: PromptNameOption = None,
    batch_size: BatchSizeOption = 32,
    dtype: DtypeOption = "auto",
    part_rows: PartRows = 8192,
    workers: Count = None,
    cpus_per_worker: Cpus = 1,
    gpus_per_worker: Annotated[
        float, typer.Option(min=0, help="GPUs of each process; with 0.5, two share one.")
    ] = 0,
    address: Address = None,
    as_json: JsonOption = False,
) -> None:
    """Give a corpus of texts a column of embeddings.

    A run that was stopped goes on where it was when the same command is given again.

    [dim]st-embfilter ray encode smollm2-embedding texts/ --out embedded/ --column text[/dim]
    """
    from st_embfilter.cluster.run import encode_corpus
    from st_embfilter.cluster.workers import Workers

    stdout = _take_stdout()
    manifest = encode_corpus(
        source,
        out,
        model,
        column=column,
        dims=dims,
        normalize=normalize,
        prompt_name=prompt_name,
        batch_size=batch_size,
        dtype=dtype,
        part_rows=part_rows,
        workers=Workers(workers, cpus_per_worker, gpus_per_worker, address),
    )
    _report(out, manifest, stdout if as_json else None)


@app.command()
def transform(
    source: Corpus,
    filter: FilterOption,
    out: Out,
    column: Annotated[str, typer.Option(help="The column of raw embeddings.")],
    dims: DimsOption = None,
    normalize: NormalizeOption = False,
    part_rows: PartRows = 131_072,
    workers: Count = None,
    cpus_per_worker: Cpus = 1,
    address: Address = None,
    as_json: JsonOption = False,
) -> None:
    """Filter a corpus's column of raw embeddings: no text is encoded again.

    A run that was stopped goes on where it was when the same command is given again.

    [dim]st-embfilter ray transform raw/ --filter smollm2-embedding --out new/ --column raw[/dim]
    """
    from st_embfilter.cluster.run import transform_corpus
    from st_embfilter.cluster.workers import Workers

    stdout = _take_stdout()
    manifest = transform_corpus(
        source,
        out,
        filter,
        column=column,
        dims=dims,
        normalize=normalize,
        part_rows=part_rows,
        workers=Workers(workers, cpus_per_worker, address=address),
    )
    _report(out, manifest, stdout if as_json else None)


def _take_stdout() -> TextIO:
    """Keep stdout for the result: until the process ends, Ray's threads may write to it."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    return stdout


def _report(out: str, manifest: dict[str, Any], stdout: TextIO | None) -> None:
    files = len(manifest["parts"])
    console.print(f"[green]Done[/green]: {out}, {manifest['rows']:,} rows in {files:,} files")
    if stdout:
        print(json.dumps(manifest), file=stdout)
