"""``st-embfilter choose``: which prompt, band and τ, without labels."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from st_embfilter.commands.options import (
    BackboneDtypeOption,
    DeviceOption,
    JsonOption,
    RevisionOption,
    parse_dtype,
    split,
)
from st_embfilter.commands.terminal import console
from st_embfilter.texts import read_sample

if TYPE_CHECKING:
    from st_embfilter.choosing.trial import Trial


def choose(
    source: Annotated[
        str,
        typer.Argument(help="A causal language model: a folder, a .gguf file, or a hub id."),
    ],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Texts of the kind you will embed, UTF-8, one a line, 100 or more of six words or "
            "more; no labels. Each is cut in two, and either half is to find the other."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Try these only: names, 'prompteol,keyword', or a template with {text} in it, one "
            "an option. Default: all names."
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Keep the embeddings in this folder: with it a run that was stopped goes on, and "
            "one with another prompt embeds no text again."
        ),
    ] = None,
    dtype: BackboneDtypeOption = "auto",
    revision: RevisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which prompt, band and τ to build a model with, before you have labels.

    Every setting is tried on short labelled texts that come with the package: does a sentence find
    the one that says the same in other words, a text its topic, a query its passage? With --texts,
    on yours too. One table shows them apart, as no setting is best for all; the last line is the
    build.

    [dim]st-embfilter choose HuggingFaceTB/SmolLM2-135M-Instruct[/dim]
    """
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.checkpoint.checkpoint import find_checkpoint
        from st_embfilter.checkpoint.gguf_file import parsed_once
        from st_embfilter.choosing.run import run_trials
        from st_embfilter.choosing.trial import choose as choose_trial
        from st_embfilter.pipeline.prompts import PLACEHOLDER, PROMPTS

    # A template may hold commas.
    asked = [name for p in prompt or () for name in ([p] if PLACEHOLDER in p else split(p))]
    with parsed_once():
        trials = run_trials(
            find_checkpoint(source, revision),
            asked or list(PROMPTS),
            texts=list(read_sample(texts)) if texts else None,
            dtype=parse_dtype(dtype),
            device=device,
            keep=embeddings,
            say=lambda said: console.print(said, markup=False),
        )
    chosen = choose_trial(trials)
    console.print(_table(trials, chosen))
    command = _build_command(source, chosen, dtype, revision)
    console.print(
        f"Scores × 100. sentences, topics and search are of each row's largest dimensions, total "
        f"is their average, at τ = 1, 2, 4 and 8.\n"
        f"[green]To build[/green]: {escape(chosen.prompt)}, {chosen.band}, "
        f"{chosen.dimensions} dimensions:"
    )
    console.print(command, markup=False)
    if as_json:
        rows = [
            {
                "prompt": trial.prompt,
                "band": trial.band,
                "dimensions": trial.dimensions,
                "ratio": trial.ratio,
                "scores": trial.scores,
                "total": trial.total,
            }
            for trial in trials
        ]
        print(json.dumps({"trials": rows, "chosen": trials.index(chosen), "build": command}))


def _table(trials: Sequence["Trial"], chosen: "Trial") -> Table:
    """A row for each prompt and band, the best first."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.prompt, trial.band), []).append(trial)
    ratios = sorted({trial.ratio for trial in trials})
    table = Table(box=None)
    table.add_column("prompt", max_width=32)
    table.add_column("band")
    for name in (*chosen.items, *(f"τ = {ratio}" for ratio in ratios)):
        table.add_column(name, justify="right")
    for group in sorted(groups.values(), key=lambda g: max(t.total for t in g), reverse=True):
        first, totals = group[0], {trial.ratio: trial for trial in group}
        cells = [f"{score:.1f}" for score in first.scores.values()]
        for ratio in ratios:
            cell = f"{totals[ratio].total:.1f}" if ratio in totals else ""
            cells.append(f"[bold green]{cell}[/]" if totals.get(ratio) is chosen else cell)
        table.add_row(escape(first.prompt), first.band, *cells)
    return table


def _build_command(source: str, chosen: "Trial", dtype: str, revision: str | None) -> str:
    """The command that builds a setting."""
    band = "edge" if chosen.band == "raw" else chosen.band
    words = ["st-embfilter", "build", source, "--out", "DIR", "--prompt", chosen.prompt]
    words += ["--band", band, "--ratio", str(chosen.ratio)]
    words += ["--dtype", dtype] if dtype != "auto" else []
    words += ["--revision", revision] if revision else []
    return shlex.join(words)
