"""``st-embfilter leaderboard``: the files of a submission to MTEB's."""

import json
from pathlib import Path
from typing import Annotated

import typer

from st_embfilter.commands.options import JsonOption, split
from st_embfilter.commands.terminal import console, import_mteb
from st_embfilter.errors import MisuseError


def leaderboard(
    model: Annotated[
        str, typer.Argument(help="The published model: org/name, or org/name@revision.")
    ],
    results: Annotated[Path, typer.Option(help="The folder that `evaluate` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to make. It must not exist.")],
    languages: Annotated[
        str, typer.Option(help="What the model is for, as eng-Latn,deu-Latn.")
    ] = "eng-Latn",
    as_json: JsonOption = False,
) -> None:
    """Write what a submission to the MTEB leaderboard needs, and have mteb read it.

    A source file with the model's ModelMeta, for a pull request to mteb, and its results in mteb's
    layout, for `mteb submit-results`. Results measured before the model was published are taken if
    the published files are the same.
    """
    if Path(model).is_dir():
        raise MisuseError(f"{model} is a folder: the leaderboard takes published models (org/name)")
    if not results.is_dir():
        raise MisuseError(f"{results}: no such folder")
    with console.status("Loading mteb and the model"):
        import_mteb()
        from st_embfilter.evaluation.evaluated import load_evaluated
        from st_embfilter.evaluation.leaderboard import write_submission
        from st_embfilter.hub.download import release_date

        evaluated = load_evaluated(model)
        submission = write_submission(
            evaluated,
            results,
            out,
            languages=split(languages),
            release_date=release_date(evaluated.name, evaluated.revision),
        )
    for task, why in submission.left_out.items():
        console.print(f"[yellow]Left out[/yellow]: {task} {why}")
    console.print(
        f"[green]Done[/green], and read by mteb: {len(submission.tasks)} tasks.\n"
        f"1. Copy {submission.source} to mteb/models/model_implementations/ of a clone of "
        f"github.com/embeddings-benchmark/mteb, and open a pull request.\n"
        f"2. mteb submit-results -m {evaluated.name} --output-folder {out} --create-pr"
    )
    if as_json:
        print(
            json.dumps(
                {
                    "folder": str(submission.folder),
                    "source": str(submission.source),
                    "tasks": submission.tasks,
                    "left_out": submission.left_out,
                }
            )
        )
