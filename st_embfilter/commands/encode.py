"""``st-embfilter encode``: from texts to a .npy file."""

import json
from typing import Annotated

import typer

from st_embfilter.commands.options import (
    BatchSizeOption,
    DeviceOption,
    DimsOption,
    DtypeOption,
    JsonOption,
    NormalizeOption,
    PromptNameOption,
    parse_dtype,
)
from st_embfilter.commands.terminal import console
from st_embfilter.hub.download import pinned
from st_embfilter.stores import Place
from st_embfilter.texts import read_lines


def encode(
    model: Annotated[
        str,
        typer.Argument(
            help="An artifact's folder, or one on the hub: org/name or org/name@revision."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="The .npy file to make, float32, one row a text: a path, or a URI as s3://…, "
            "whose work lies in ~/.cache/st-embfilter until it is put there."
        ),
    ],
    file: Annotated[
        str,
        typer.Argument(
            help="UTF-8, one text a line: a path, or a URI as s3://… - is standard input."
        ),
    ] = "-",
    dims: DimsOption = None,
    normalize: NormalizeOption = False,
    prompt_name: PromptNameOption = None,
    batch_size: BatchSizeOption = 32,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed every line of a file.

    The embeddings are those of SentenceTransformer.encode. What all texts share in front, as the
    prompt, is computed once. A run that was stopped goes on where it was when the same command is
    given again.

    [dim]st-embfilter encode smollm2-embedding texts.txt --out texts.npy[/dim]
    """
    Place.of(out).check_absent()
    wanted = parse_dtype(dtype)
    texts = read_lines(file)
    pinned_name = pinned(model)  # A download shows its own progress.
    with console.status("Loading the model"):
        from st_embfilter.encoding.loading import load_model, model_identity
        from st_embfilter.encoding.packed_weights import pack_weights
        from st_embfilter.encoding.to_file import encode_to_file

        loaded = load_model(pinned_name, dims, device, None if wanted == "auto" else wanted)
        pack_weights(loaded)
    shape = encode_to_file(
        loaded,
        texts,
        out,
        job=json.dumps([model_identity(pinned_name), dims, dtype]),
        batch_size=batch_size,
        normalize=normalize,
        prompt_name=prompt_name,
    )
    console.print(f"[green]Done[/green]: {out}, {shape[0]} texts × {shape[1]} dimensions")
    if as_json:
        print(json.dumps({"path": out, "shape": shape, "dtype": "float32"}))
