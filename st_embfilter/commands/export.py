"""``st-embfilter export``: for ONNX Runtime, OpenVINO or llama.cpp."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from st_embfilter.commands.options import JsonOption
from st_embfilter.commands.terminal import console
from st_embfilter.errors import MisuseError


def export(
    path: Annotated[Path, typer.Argument(help="An artifact's folder.", metavar="DIR")],
    runtime: Annotated[
        Literal["onnx", "openvino", "gguf"],
        typer.Argument(help="For which runtime; gguf is for llama.cpp, Ollama and LM Studio."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="For gguf: the language model's own GGUF file, of any quantization. Its weights "
            "go into the new file as they are."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="For gguf: the file to make. It must not exist.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(help="For gguf: keep the first so many dimensions.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take an artifact to another runtime.

    For onnx and openvino, a graph of the language model is added to the artifact, and
    SentenceTransformer(DIR, backend="onnx") then loads it; without one in the folder, that fails
    for most language models. It is in float32, and as large as the model.

    For gguf, the language model's own GGUF file is written anew with the filter in it: one file
    that llama-server --embeddings serves as it is. Whoever asks writes the prompt around the text.

    [dim]st-embfilter export smollm2-embedding onnx[/dim]

    [dim]st-embfilter export smollm2-embedding gguf --model SmolLM2.gguf --out embed.gguf[/dim]
    """
    if runtime == "gguf":
        if model is None or out is None:
            raise MisuseError("gguf takes --model FILE, the language model's, and --out FILE")
        added, use = _export_gguf(path, model, out, dims)
    elif any(option is not None for option in (model, out, dims)):
        raise MisuseError("--model, --out and --dims are for gguf")
    else:
        with console.status("Exporting, and comparing with the model"):
            from st_embfilter.artifact.graphs import export as add_graph

            added = add_graph(path, runtime)
        use = f'SentenceTransformer("{path}", backend="{runtime}")'
    files = [added] if added.is_file() else list(added.iterdir())
    size = sum(file.stat().st_size for file in files)
    console.print(f"[green]Done[/green]: {added}, {size / 1e6:,.0f} MB.\nUse it: {use}")
    if as_json:
        print(json.dumps({"path": str(added), "bytes": size}))


def _export_gguf(path: Path, model: Path, out: Path, dims: int | None) -> tuple[Path, str]:
    """The file that was made, and what to do with it."""
    with console.status("Loading PyTorch and sentence-transformers"):
        from st_embfilter.artifact.gguf_export import export_gguf
        from st_embfilter.checkpoint.gguf_file import parsed_once
        from st_embfilter.layout.manifest import Manifest

    with parsed_once():
        added = export_gguf(path, model, out, dims)
    manifest = Manifest.read(path)
    kept = dims or manifest.k
    return added, (
        f"llama-server --embeddings -m {added}. Send each text as {manifest.prompt!r}; of the "
        f"{manifest.width} numbers that come back, the first {kept} are the embedding"
    )
