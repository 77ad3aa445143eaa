"""``st-embfilter export``: a graph for ONNX Runtime or OpenVINO."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from st_embfilter.commands.options import JsonOption
from st_embfilter.commands.terminal import console


def export(
    path: Annotated[Path, typer.Argument(help="An artifact's folder.", metavar="DIR")],
    runtime: Annotated[Literal["onnx", "openvino"], typer.Argument(help="For which runtime.")],
    as_json: JsonOption = False,
) -> None:
    """Add a graph of the language model to an artifact, for ONNX Runtime or OpenVINO.

    SentenceTransformer(DIR, backend="onnx") then loads it; without a graph in the folder, that
    fails for most language models. It is in float32, and as large as the model.

    [dim]st-embfilter export smollm2-embedding onnx[/dim]
    """
    with console.status("Exporting, and comparing with the model"):
        from st_embfilter.artifact.graphs import export as add_graph

        added = add_graph(path, runtime)
    size = sum(file.stat().st_size for file in added.iterdir())
    console.print(
        f"[green]Done[/green]: {added}, {size / 1e6:,.0f} MB.\n"
        f'Use it: SentenceTransformer("{path}", backend="{runtime}")'
    )
    if as_json:
        print(json.dumps({"path": str(added), "bytes": size}))
