"""``st-embfilter inspect``: which tokens a model's embeddings write."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from st_embfilter.commands.options import (
    DeviceOption,
    JsonOption,
    KeptOption,
    RatioOption,
    RevisionOption,
    parse_band,
)
from st_embfilter.commands.terminal import console
from st_embfilter.files import check_absent

MOST_TEXTS = 500


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="A causal language model: a folder, a .gguf file, or a hub id. For comparison, "
            "also the folder of a trained sentence-transformers model."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make. It must not exist.")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="UTF-8, one text a line. All are counted for the tokens' frequencies, and the "
            f"first {MOST_TEXTS} embedded. Default: texts of many kinds, of this package, and "
            "frequencies from the model itself, with no context."
        ),
    ] = None,
    ratio: RatioOption = None,
    dims: KeptOption = None,
    band: Annotated[
        str, typer.Option(help="As for build: edge, auto, head, tail, mid, random, or 3,4,5.")
    ] = "edge",
    prompt: Annotated[
        str | None,
        typer.Option(help="As for build. Default: prompteol.", show_default=False),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="The tokens' frequencies as JSON: an object of counts by token, as the vocabulary "
            "spells it, or a list of counts by id."
        ),
    ] = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which tokens a model's embeddings write, and what the filter changes.

    DIR/report.html says whether what the method rests on is found in this model: frequent tokens,
    the average token in the edge spectrum, and what the filter does to both. Every figure is in
    DIR/report.json.

    [dim]st-embfilter inspect HuggingFaceTB/SmolLM2-135M-Instruct --out report[/dim]
    """
    check_absent(out)
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.checkpoint.gguf_file import parsed_once
        from st_embfilter.inspection.page import write_report
        from st_embfilter.inspection.run import run_inspection
        from st_embfilter.inspection.subject import find_subject
        from st_embfilter.spectral.bands import BandChoice

    choice = BandChoice(ratio, dims, parse_band(band))
    with parsed_once():
        inspection = run_inspection(
            find_subject(source, choice=choice, prompt=prompt, revision=revision),
            texts=texts,
            table=tokens,
            most_texts=MOST_TEXTS,
            device=device,
            say=console.print,
        )
    findings = write_report(inspection, out)
    shown = Table(box=None, show_header=False)
    colours = {"holds": "green", "in part": "yellow", "does not hold": "red"}
    for finding in findings:
        shown.add_row(f"[{colours[finding.verdict]}]{finding.verdict}[/]", finding.claim)
    console.print(shown)
    console.print(f"[green]Done[/green]: {out / 'report.html'}")
    if as_json:
        print(json.dumps({"path": str(out), "reading": [asdict(f) for f in findings]}))
