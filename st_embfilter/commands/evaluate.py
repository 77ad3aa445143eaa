"""``st-embfilter evaluate``: models through mteb, with baselines, tables and plots."""

import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markdown import Markdown

from st_embfilter.commands.options import DeviceOption, JsonOption, split
from st_embfilter.commands.terminal import console, import_mteb
from st_embfilter.errors import DataError, MisuseError
from st_embfilter.texts import read_lines


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Artifacts' folders, or models on the hub. One built with --ratio 1 gives every τ "
            "and every baseline.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The folder for results, tables and plots; to go on, the same.")
    ],
    benchmark: Annotated[
        str | None,
        typer.Option(
            help='One of mteb\'s, as "MTEB(eng, v2)" or "MTEB(eng, v1)", or paper: the 49 tasks '
            "of EmbedFilter's."
        ),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="mteb's names, as STS13,SciFact.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Read the tasks from a folder instead of the hub: mteb/TASK/SPLIT.jsonl, "
            "beir/NAME, extra/NAME. Without --tasks: all in it."
        ),
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Filter ratios τ; 1 is the raw embedding.")
    ] = "1,2,4,8",
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Baselines: head, tail, mid, random (other bands), truncate (the raw embedding's "
            "first numbers), pca, whitening, all-but-the-top, mean-removal; all of these: "
            "baselines; or another model. Several: 'pca,whitening', or the option again."
        ),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            help="What pca, whitening, all-but-the-top and mean-removal are fitted on: UTF-8, one "
            "text a line. Texts of the task that is scored are left out."
        ),
    ] = None,
    protocol: Annotated[
        Literal["mteb", "paper"],
        typer.Option(
            help="paper: at most 512 tokens, and embeddings of length 1 but for classification."
        ),
    ] = "mteb",
    languages: Annotated[
        str, typer.Option(help="With --tasks or --data: ISO 639-3 codes, as eng,deu.")
    ] = "eng",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 32,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score models on mteb's tasks, each text encoded once for all τ and baselines.

    A run that was stopped goes on where it was when the same command is given again.

    [dim]st-embfilter evaluate smollm2-embedding --benchmark "MTEB(eng, v2)" --out scores[/dim]
    """
    # Remarks on mteb's own tasks and settings (superseded, few iterations): nothing to act on.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(mteb|sklearn)\b.*")
    with console.status("Loading mteb"):
        import_mteb()
        from st_embfilter.evaluation.evaluate import evaluate as run
        from st_embfilter.evaluation.local_data import local_tasks
        from st_embfilter.evaluation.methods import BASELINES, RAW, FitSample
        from st_embfilter.evaluation.task_lists import benchmark_tasks, named_tasks
    if not split(ratios):
        raise MisuseError("give at least one filter ratio: --ratios 2")
    names = split(tasks)
    if bool(benchmark) == bool(names) and (benchmark or data is None):
        raise MisuseError("give either --benchmark or --tasks (or --data, for all tasks in it)")
    spoken = split(languages)
    if data is not None:
        if benchmark:
            raise MisuseError("--data has its own tasks: choose from them with --tasks")
        chosen = local_tasks(data, names, spoken)
    else:
        chosen = benchmark_tasks(benchmark) if benchmark else named_tasks(names, spoken)
    compared = [name for entry in against or () for name in split(entry)]
    if "baselines" in compared:
        compared.remove("baselines")
        compared += [name for name in BASELINES if name not in (*compared, RAW)]
    done = run(
        models,
        chosen,
        out,
        ratios=[_parse_ratio(ratio) for ratio in split(ratios)],
        against=compared,
        sample=FitSample(read_lines(fit), fit.name) if fit else None,
        paper=protocol == "paper",
        batch_size=batch_size,
        device=device,
        command=_command_line(),
    )
    if done.scores:
        console.print(Markdown(done.summary))
    console.print(f"Tables and plot: {out}/scores.md, .csv, .json, .png. Results: {out}/results")
    if as_json:
        print((out / "scores.json").read_text(encoding="utf-8"), end="")
    if done.failures:
        faults = "; ".join(f"{task}: {why}" for task, why in done.failures.items())
        raise DataError(
            f"{len(done.failures)} of {len(chosen)} tasks could not be scored (the others are "
            f"in {out}; the same command tries these again): {faults}"
        )


def _parse_ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MisuseError(f"the filter ratio {text!r} is not a number") from None


def _command_line() -> str:
    """The command as it was given, without the folders that its paths are in."""
    words = [word if word.startswith("-") else Path(word).name for word in sys.argv[1:]]
    return shlex.join(["st-embfilter", *words])
