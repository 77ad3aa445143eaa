"""``st-embfilter publish``: from an artifact to a revision on the hub."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from st_embfilter.commands.options import JsonOption
from st_embfilter.commands.terminal import console


def publish(
    path: Annotated[Path, typer.Argument(help="An artifact's folder.", metavar="DIR")],
    repo_id: Annotated[
        str, typer.Argument(help="The hub repository: org/name.", metavar="ORG/NAME")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch; made if it isn't there. Default: main.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of changing it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list what would go, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish an artifact on the Hugging Face hub, in one commit with everything.

    Checks the artifact first, as verify does. The branch then holds the folder's files and no
    others, so change the model card in the folder. Needs a token that may write: hf auth login, or
    HF_TOKEN. An upload that was stopped leaves what was there, and goes on where it was when the
    same command is given again.

    [dim]st-embfilter publish smollm2-embedding org/smollm2-embedding[/dim]
    """
    if dry_run:
        _show_plan(path, repo_id, private, revision, as_json)
        return
    console.print("Checking the artifact, and sending it")
    from st_embfilter.artifact.publishing import publish as publish_folder

    published = publish_folder(
        path, repo_id, private=private, revision=revision, create_pr=create_pr
    )
    console.print(
        f"[green]Published[/green]: {published.pull_request or published.url}\n"
        f"Check it: st-embfilter verify {repo_id}@{published.revision}"
    )
    if as_json:
        print(json.dumps(vars(published)))


def _show_plan(
    path: Path, repo_id: str, private: bool, revision: str | None, as_json: bool
) -> None:
    with console.status("Checking the artifact"):
        from st_embfilter.artifact.publishing import prepare

        plan = prepare(path, repo_id, private=private, revision=revision)
    table = Table("file", "bytes", box=None)
    for name, size in plan.files.items():
        table.add_row(name, f"{size:,}")
    for name in plan.deleted:
        table.add_row(name, "[red]deleted there[/red]")
    console.print(table)
    state = "is there and would be updated" if plan.exists else "would be made"
    console.print(f"{repo_id} {state}. Nothing was sent.")
    if as_json:
        print(json.dumps(vars(plan)))
