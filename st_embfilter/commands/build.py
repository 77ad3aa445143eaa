"""``st-embfilter build``: from a language model to an artifact."""

import json
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from st_embfilter.commands.options import (
    BackboneDtypeOption,
    DeviceOption,
    JsonOption,
    KeptOption,
    RatioOption,
    RevisionOption,
    parse_band,
    parse_dtype,
)
from st_embfilter.commands.terminal import console
from st_embfilter.files import check_absent
from st_embfilter.texts import read_sample


def _use_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Read a recipe, and take its entries for the options that aren't given."""
    if path is not None:
        from st_embfilter.artifact.recipes import read_recipe

        recipe = read_recipe(path)
        context.default_map = {**recipe.build, "form": recipe.build.get("format")}
        context.obj = recipe.card
    return path


def build(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A causal language model: a folder with config.json and safetensors files, a "
            ".gguf file, or a hub id (org/name)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make. It must not exist.")],
    ratio: RatioOption = None,
    dims: KeptOption = None,
    band: Annotated[
        str,
        typer.Option(
            help="What is kept. auto: each direction of W_U's spectrum weighted by how far the "
            "model's embeddings of sample texts differ in it. edge: the paper's, which cuts both "
            "ends of the spectrum. For comparison head, tail, mid, random; or directions, as 3,4,5."
        ),
    ] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="For --band auto: a file of texts of the kinds you will embed, one a line, 400 or "
            "more. Default: 1,150 texts of many kinds, which come with this package."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="For --band random.")] = 0,
    prompt: Annotated[
        str,
        typer.Option(
            help="prompteol, prompteol-classic, cot, knowledge, keyword, echo, none, or a template "
            "with {text} in it."
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
    dtype: BackboneDtypeOption = "auto",
    revision: RevisionOption = None,
    thin: Annotated[
        bool,
        typer.Option(
            "--thin",
            help="Refer to the language model on the hub instead of holding its weights: a few MB. "
            "Needs peft to load, and isn't for servers.",
        ),
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(
            callback=_use_recipe,
            is_eager=True,
            help="A YAML file of these options, and of what the model card tells. Options that are "
            "given go first.",
        ),
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
    check_absent(out)
    started = time.monotonic()
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.artifact.saving import save_pretrained
        from st_embfilter.artifact.thin import check_base
        from st_embfilter.checkpoint.checkpoint import find_checkpoint
        from st_embfilter.checkpoint.gguf_file import parsed_once
        from st_embfilter.pipeline.building import build_pipeline, load_or_compute_spectrum
        from st_embfilter.pipeline.choices import BuildChoices
        from st_embfilter.pipeline.prompts import resolve_prompts
        from st_embfilter.spectral.bands import BandChoice

    choices = BuildChoices(
        band=BandChoice(ratio, dims, parse_band(band), seed),
        prompts=resolve_prompts(prompt, query_prompt, document_prompt),
        format=form,
        max_seq_length=max_seq_length,
        dtype=parse_dtype(dtype),
        device=device,
        calibration=list(read_sample(calibration)) if calibration else None,
    )
    with parsed_once():
        checkpoint = find_checkpoint(source, revision)
        if thin:
            check_base(checkpoint)  # Before minutes of work.
        console.print(f"Building an embedding model of [bold]{source}[/bold]")
        kept = load_or_compute_spectrum(checkpoint.unembedding, spectrum) if spectrum else None
        model = build_pipeline(checkpoint, choices, kept, progress=True)
    console.print("Writing the artifact, with probe embeddings")
    save_pretrained(model, out, thin=thin, facts=context.obj if recipe else None)
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
