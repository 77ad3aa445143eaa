"""The backbone as an ONNX or OpenVINO graph, inside the artifact.

sentence-transformers' own ``backend="onnx"`` and ``backend="openvino"`` export a model when they
load it, and give a decoder's graph an input ``position_ids`` that nobody fills: ONNX Runtime then
stops, and OpenVINO gives NaN. A graph that lies in the repository already is loaded as it is.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_embfilter._compat import tokenize
from st_embfilter.artifact.thin import is_thin
from st_embfilter.artifact.verification import is_exact, load_plain, verify
from st_embfilter.encoding.probes import PROBE_TOLERANCE, relative_difference
from st_embfilter.errors import (
    MissingDependencyError,
    MisuseError,
    SourceNotFoundError,
    VerificationError,
)
from st_embfilter.files import atomic_output, check_absent, replace_file, writing
from st_embfilter.layout.manifest import Manifest
from st_embfilter.layout.names import CARD

Runtime = Literal["onnx", "openvino"]
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
OPSET = 18
# A protobuf file ends at 2 GiB; larger weights go beside it, under the name that optimum looks for.
LARGEST_FILE = 1_900_000_000
EXTERNAL_DATA = "model.onnx_data"
# In front of this the card tells of what was added.
CARD_HEADING = "## What it was made from"
NOTES = {
    "onnx": """## ONNX Runtime

```python
from sentence_transformers import SentenceTransformer  # pip install "sentence-transformers[onnx]"

model = SentenceTransformer("ORG/NAME", backend="onnx")
```
""",
    "openvino": """## OpenVINO

On processors with bfloat16 OpenVINO computes in that; this asks for float32:

```python
# pip install "sentence-transformers[openvino]"
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(
    "ORG/NAME",
    backend="openvino",
    model_kwargs={"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}},
)
```
""",
}


class TokenStates(nn.Module):
    """A backbone as sentence-transformers asks it: ids and mask in, last hidden states out."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """``(batch, tokens)`` int64 twice to ``(batch, tokens, d)`` float32."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states


def export(path: str | Path, runtime: Runtime) -> Path:
    """Add a graph of the backbone to an artifact, in float32.

    The graph is compared with the backbone on the artifact's probes before it is kept. It appears
    whole or not at all.

    Args:
        path: The artifact's folder.
        runtime: ``onnx`` or ``openvino``.

    Returns:
        The folder that was added, ``onnx`` or ``openvino``.

    Raises:
        MissingDependencyError: If the packages for it aren't installed.
        SourceNotFoundError: If there is no such folder.
        MisuseError: If the runtime is unknown, or the artifact is thin or exact.
        VerificationError: If the artifact isn't sound, or the graph gives other numbers.
        OutputExistsError: If the artifact has such a folder.
        OutputWriteError: If it can't be written.
    """
    if runtime not in NOTES:
        raise MisuseError(f"the runtime {runtime} is unknown: use onnx or openvino")
    for package in (*PACKAGES["onnx"], *PACKAGES[runtime]):
        if find_spec(package) is None:
            raise MissingDependencyError(f"needs {package}: pip install 'st-embfilter[{runtime}]'")
    folder = Path(path)
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: no such folder")
    check_absent(folder / runtime)  # Before minutes of work.
    verify(folder)
    if is_thin(folder) or is_exact(folder):
        raise MisuseError(
            f"{folder} is thin or exact: these runtimes load the portable form, with its backbone"
        )
    model = load_plain(folder)
    states = TokenStates(model[0].auto_model.float()).eval()
    with atomic_output(folder / runtime, folder=True) as partial:
        _write_onnx(states, partial / "model.onnx")
        if runtime == "onnx":
            run = onnx_runner(partial / "model.onnx")
        else:
            _write_openvino(partial / "model.onnx", partial / "openvino_model.xml")
            for file in partial.glob("model.onnx*"):
                file.unlink()
            run = _openvino_runner(partial / "openvino_model.xml")
        check_graph(model, states, run, Manifest.read(folder).probes.texts)
    text = (folder / CARD).read_text(encoding="utf-8")
    text = text.replace(CARD_HEADING, f"{NOTES[runtime]}\n{CARD_HEADING}", 1)
    with writing(folder / CARD), replace_file(folder / CARD) as fresh:
        fresh.write_text(text, encoding="utf-8")
    return folder / runtime


def _write_onnx(states: TokenStates, path: Path) -> None:
    """Export with free batch and length; weights beside the graph where they don't fit in."""
    ids = torch.arange(3, 17).reshape(2, 7)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(parameter.nbytes for parameter in states.parameters())
    # It tells of each of its steps.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        states,
        (ids, mask),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        dynamic_shapes={"input_ids": free, "attention_mask": free},
        dynamo=True,
        opset_version=OPSET,
        external_data=size > LARGEST_FILE,
        verbose=False,
    )
    if size > LARGEST_FILE:
        _rename_external_data(path)


def _rename_external_data(path: Path) -> None:
    """Give the file beside an ONNX graph the name that optimum fetches from a hub."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = EXTERNAL_DATA
    onnx.save(graph, path)
    path.with_name(f"{path.name}.data").rename(path.with_name(EXTERNAL_DATA))


def _write_openvino(onnx_path: Path, path: Path) -> None:
    import openvino

    graph = openvino.convert_model(onnx_path)
    openvino.save_model(graph, path, compress_to_fp16=False)


Run = Callable[[dict[str, np.ndarray[Any, Any]]], np.ndarray[Any, Any]]


def onnx_runner(path: Path) -> Run:
    """What a graph gives in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda features: np.asarray(session.run(None, features)[0])


def _openvino_runner(path: Path) -> Run:
    """What a graph gives in OpenVINO, in float32."""
    import openvino

    graph = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda features: np.asarray(graph(features)[0])


def check_graph(
    model: SentenceTransformer, states: TokenStates, run: Run, texts: list[str]
) -> None:
    """Check a graph against the backbone it was made of.

    Raises:
        VerificationError: If it gives other numbers.
    """
    features = tokenize(model, texts)
    ids, mask = features["input_ids"], features["attention_mask"]
    with torch.inference_mode():
        expected = states(ids, mask)[mask.bool()]
    found = torch.from_numpy(run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()}))
    error = relative_difference(found[mask.bool()], expected)
    if not error <= PROBE_TOLERANCE["float32"]:
        raise VerificationError(f"the exported graph gives other numbers (off by {error:.1e})")
