"""``st-embfilter verify``: is an artifact sound?"""

import json
from typing import Annotated

import typer
from rich.table import Table

from st_embfilter.commands.options import JsonOption
from st_embfilter.commands.terminal import console, fail


def verify(
    artifact: Annotated[
        str,
        typer.Argument(
            help="An artifact's folder, or one on the hub: org/name or org/name@revision."
        ),
    ],
    url: Annotated[
        str | None,
        typer.Option(
            help="Check a running server instead: http://host:port, with an OpenAI-compatible "
            "route (vLLM, Infinity, Text Embeddings Inference) or /embed."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --url: what the server calls it, if it serves several.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="With --url: what the server computes in, if less precise than what the artifact "
            "was built in: float16 or bfloat16."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="EMBFILTER_API_KEY", help="With --url: the server's key.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an artifact: files, filter matrix, provenance, and that it embeds as it should.

    Loads it with plain sentence-transformers and compares with the probe embeddings that were
    stored when it was built. Exit code 1 if anything doesn't hold. With --url, asks a running
    server for these embeddings, and says what differs: filter, prompt or pooling.

    [dim]st-embfilter verify org/smollm2-embedding --url http://localhost:8000[/dim]
    """
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.artifact.server_check import check_server
        from st_embfilter.artifact.verification import run_checks
        from st_embfilter.hub.download import pinned

    name = pinned(artifact)  # A download shows its own progress.
    with console.status("Checking"):
        if url is None:
            checks = run_checks(name)
        else:
            checks = check_server(name, url, model=model, dtype=dtype, api_key=api_key)
    table = Table(box=None, show_header=False)
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]FAILED[/red]"
        table.add_row(mark, check.name, check.detail)
    console.print(table)
    if as_json:
        print(json.dumps([vars(check) for check in checks]))
    if not all(check.ok for check in checks):
        what = f"{artifact} is not a sound artifact"
        fail(what if url is None else f"{url} doesn't give the embeddings of {artifact}", 1)
