"""The command line, ``st-embfilter``: its commands, and how every error ends."""

import os
from typing import Annotated

import typer

from st_embfilter._version import __version__
from st_embfilter.commands.build import build
from st_embfilter.commands.choose import choose
from st_embfilter.commands.cluster import app as ray_app
from st_embfilter.commands.demo import demo
from st_embfilter.commands.encode import encode
from st_embfilter.commands.evaluate import evaluate
from st_embfilter.commands.export import export
from st_embfilter.commands.inspect import inspect
from st_embfilter.commands.leaderboard import leaderboard
from st_embfilter.commands.publish import publish
from st_embfilter.commands.terminal import fail, progress_for_log
from st_embfilter.commands.transform import transform
from st_embfilter.commands.verify import verify
from st_embfilter.errors import EmbFilterError

app = typer.Typer(
    name="st-embfilter",
    help="Text embeddings from any causal language model, without training (EmbedFilter).\n\n"
    "Start with [bold]st-embfilter build SOURCE --out DIR[/bold]: it makes a folder that "
    "SentenceTransformer(DIR) loads, with nothing else installed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
COMMANDS = (
    build,
    choose,
    inspect,
    verify,
    publish,
    encode,
    transform,
    export,
    evaluate,
    leaderboard,
    demo,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(ray_app, name="ray")


def main() -> None:
    """Run the command line: every error is one line, and the exit code of its kind."""
    try:
        with progress_for_log():
            app()
    except EmbFilterError as error:
        fail(str(error), error.exit_code)
    except Exception as error:
        if os.environ.get("EMBFILTER_DEBUG"):
            raise
        fail(f"{type(error).__name__}: {error} (not expected: EMBFILTER_DEBUG=1 shows where)", 1)


def _show_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print it, and exit."
        ),
    ] = False,
) -> None:
    """The options in front of a command."""
