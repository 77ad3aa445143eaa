"""``st-embfilter verify``: is an artifact sound?"""

import json
from typing import Annotated

import typer
from rich.table import Table

from st_embfilter.commands.common import JsonOption, console, fail


def verify(
    artifact: Annotated[
        str,
        typer.Argument(
            help="An artifact's folder, or one on the hub: org/name or org/name@revision."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Check an artifact: files, filter matrix, provenance, and that it embeds as it should.

    Loads it with plain sentence-transformers and compares with the probe embeddings that were
    stored when it was built. Exit code 1 if anything doesn't hold.
    """
    with console.status("Checking"):
        from st_embfilter.verification import run_checks

        checks = run_checks(artifact)
    table = Table(box=None, show_header=False)
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]FAILED[/red]"
        table.add_row(mark, check.name, check.detail)
    console.print(table)
    if as_json:
        print(json.dumps([vars(check) for check in checks]))
    if not all(check.ok for check in checks):
        fail(f"{artifact} is not a sound artifact", 1)
