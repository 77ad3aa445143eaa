"""Check an artifact: is it whole, is it a filter, and does it embed as its builder saw it?"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from st_embfilter.artifact.thin import ADAPTER_WEIGHTS, adds_nothing, is_thin
from st_embfilter.checkpoint.source import ADAPTER_CONFIG
from st_embfilter.encoding.probes import PROBE_TOLERANCE, encode_probes, relative_difference
from st_embfilter.errors import CheckpointError, MissingDependencyError, VerificationError
from st_embfilter.files import read_json
from st_embfilter.hub.download import artifact_folder, refuse_part
from st_embfilter.layout.filter_matrix import read_matrix
from st_embfilter.layout.manifest import FORMAT, Manifest
from st_embfilter.layout.names import (
    CARD,
    DENSE_CONFIG,
    DENSE_WEIGHTS,
    EXACT_CODE,
    EXACT_MODULES,
    MODULES,
    MODULES_FILE,
    POOLING_CONFIG,
    PROVENANCE_FILE,
)
from st_embfilter.layout.trust import holds_only_our_code
from st_embfilter.pipeline.prompts import PLACEHOLDER
from st_embfilter.spectral.bands import AUTO, band_indices

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    MODULES_FILE,
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    POOLING_CONFIG,
    DENSE_CONFIG,
    DENSE_WEIGHTS,
    PROVENANCE_FILE,
    CARD,
)
CODE_OR_PICKLE = (".py", ".bin", ".pt", ".pth", ".pkl", ".ckpt")
# Plain numbers, in spite of the name.
OPENVINO_WEIGHTS = Path("openvino", "openvino_model.bin")
ORTHONORMAL_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Check:
    """One check of an artifact: its name, whether it holds, and the figure or the fault."""

    name: str
    ok: bool
    detail: str


def verify(path: str | Path) -> list[Check]:
    """Check an artifact's files, shapes, rows, provenance and probe embeddings.

    Args:
        path: The artifact's folder, or one on the hub: ``org/name`` or ``org/name@revision``.

    Returns:
        The checks, all of which hold.

    Raises:
        SourceNotFoundError: If there is no such folder, and it can't be had from the hub.
        OutputWriteError: If there is no space to download it.
        VerificationError: If a check doesn't hold; its message tells all of those.
    """
    checks = run_checks(path)
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
    if failed:
        raise VerificationError(f"{path} is not a sound artifact: {'; '.join(failed)}")
    return checks


def run_checks(path: str | Path) -> list[Check]:
    """As :func:`verify`, but gives the checks that fail too. Each needs those before it."""
    folder = artifact_folder(path)
    steps: list[tuple[str, Callable[[Path], str]]] = [
        ("files", _check_files),
        ("modules", _check_modules),
        ("filter matrix", _check_matrix),
        ("provenance", _check_provenance),
        ("probe embeddings", _check_probes),
    ]
    checks: list[Check] = []
    for name, step in steps:
        try:
            checks.append(Check(name, True, step(folder)))
        except (
            VerificationError,
            CheckpointError,
            SafetensorError,
            OSError,
            ValueError,
            LookupError,
        ) as error:
            checks.append(Check(name, False, f"{error}"))
            break
        except (TypeError, AttributeError, RuntimeError, ImportError) as error:
            checks.append(Check(name, False, f"{type(error).__name__}: {error}"))
            break
    if checks[0].name == "files" and not checks[0].ok:
        refuse_part(path, checks[0].detail.removeprefix("missing "))
    return checks


def _check_files(folder: Path) -> str:
    """All files are there, and none that holds a pickle, or code but the exact form's own."""
    base = (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if is_thin(folder) else ("config.json",)
    missing = [name for name in (*base, *FILES) if not (folder / name).is_file()]
    _require(not missing, f"missing {', '.join(missing)}")
    if is_thin(folder):
        _require(adds_nothing(folder), f"{ADAPTER_WEIGHTS} is not all zeros")
        _require(not (folder / "config.json").exists(), "has both a base model and a config.json")
    weights = list(folder.glob("*.safetensors"))
    _require(bool(weights), "the backbone's weights are missing")
    found = sorted(
        file.name
        for file in folder.rglob("*")
        if file.suffix in CODE_OR_PICKLE and file.relative_to(folder) != OPENVINO_WEIGHTS
    )
    if (folder / EXACT_CODE.name).is_file():
        found.remove(EXACT_CODE.name)  # The next check looks at it.
    _require(not found, f"holds code or pickles: {', '.join(found)}")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{len(FILES) + len(base) + len(weights)} files, {size / 1e6:.1f} MB"


def _check_modules(folder: Path) -> str:
    """``modules.json`` names what all releases and servers understand, or our own code."""
    modules = read_json(folder / MODULES_FILE)
    _require(modules in (MODULES, EXACT_MODULES), "modules.json is of neither form")
    _require(
        holds_only_our_code(folder)
        or not (is_exact(folder) or (folder / EXACT_CODE.name).exists()),
        f"{EXACT_CODE.name} is not this release of st-embfilter's, or not alone: it is not run",
    )
    dense = read_json(folder / DENSE_CONFIG)
    identity = "torch.nn.modules.linear.Identity"
    _require(
        dense.get("activation_function") == identity and dense.get("bias") is False,
        "2_Dense has a bias or an activation function",
    )
    return f"{modules[0]['type'].rpartition('.')[2]} → Pooling → Dense"


def is_exact(folder: Path) -> bool:
    """Whether an artifact says that it is in the exact form."""
    return bool(read_json(folder / MODULES_FILE) == EXACT_MODULES)


def _check_matrix(folder: Path) -> str:
    """The filter has the shape that the configurations say, and the rows of its band."""
    weight = read_matrix(folder)
    dense = read_json(folder / DENSE_CONFIG)
    pooling = read_json(folder / POOLING_CONFIG)
    shape = (dense["out_features"], dense["in_features"])
    _require(weight.shape == shape, f"is {weight.shape}, its config says {shape}")
    _require(
        pooling["word_embedding_dimension"] == shape[1],
        f"takes {shape[1]} numbers, the pooling gives {pooling['word_embedding_dimension']}",
    )
    _require(bool(np.isfinite(weight).all()), "holds NaN or infinity")
    size = f"{shape[0]} × {shape[1]} float32"
    if Manifest.read(folder).band == AUTO:
        _require(bool(weight.any(axis=1).all()), "has rows that are all zeros")
        return f"{size}, weighted"
    rows = weight.astype(np.float64)
    error = float(np.abs(rows @ rows.T - np.eye(len(rows))).max())
    _require(error <= ORTHONORMAL_TOLERANCE, f"its rows are not orthonormal (error {error:.1e})")
    return f"{size}, rows orthonormal to {error:.1e}"


def _check_provenance(folder: Path) -> str:
    """The manifest says where the filter is from, and fits the matrix."""
    manifest = Manifest.read(folder)
    k, width = read_matrix(folder).shape
    _require(manifest.format == FORMAT, f"unknown format {manifest.format}")
    _require(manifest.k == k, f"tells of {manifest.k} dimensions, the filter has {k}")
    _require(
        len(manifest.sha256) == 64 and bool(manifest.source and manifest.tensor),
        "doesn't say which matrix the filter was taken from",
    )
    if is_thin(folder):
        adapter = read_json(folder / ADAPTER_CONFIG)
        base = adapter["base_model_name_or_path"], adapter["revision"]
        _require(
            base == (manifest.source, manifest.revision),
            f"the filter was taken from {manifest.source}, {ADAPTER_CONFIG} names {base[0]}",
        )
    _require(PLACEHOLDER in manifest.prompt, "has no prompt")
    values = manifest.singular_values
    _require(
        len(values) == width and values == sorted(values, reverse=True) and values[-1] >= 0,
        f"doesn't list {width} descending singular values",
    )
    _check_band(manifest, k, width)
    return f"{manifest.source}, {manifest.tensor}, {manifest.band} band"


def _check_band(manifest: Manifest, k: int, width: int) -> None:
    """The directions that a manifest lists, or their weights, are its band's."""
    if manifest.band == AUTO:
        weights, calibration = manifest.weights or [], manifest.calibration or {}
        _require(
            len(weights) == width and all(0 <= weight <= 1 for weight in weights),
            f"doesn't weight {width} directions from 0 to 1",
        )
        _require(calibration.get("texts", 0) > 0, "doesn't say what it was calibrated on")
        return
    listed: Any = manifest.indices if manifest.band == "indices" else manifest.band
    expected = band_indices(width, k, listed, manifest.seed or 0)
    _require(manifest.indices == expected, f"lists directions that are not the {listed} band")


def _check_probes(folder: Path) -> str:
    """Plain sentence-transformers gives the embeddings that the builder saw."""
    probes = Manifest.read(folder).probes
    expected = torch.tensor(probes.embeddings)
    model = load_plain(folder)
    found = encode_probes(model, probes.texts)
    _require(
        found.shape == expected.shape, f"are {tuple(found.shape)}, not {tuple(expected.shape)}"
    )
    error = relative_difference(found, expected)
    tolerance = PROBE_TOLERANCE[probes.dtype]
    changed = ": has the base model changed on the hub?" if is_thin(folder) else ""
    _require(
        error <= tolerance,
        f"differ by {error:.1e} of their length (at most {tolerance:.0e}){changed}",
    )
    return f"{len(expected)} texts, off by at most {error:.1e} of their length"


def load_plain(folder: Path) -> SentenceTransformer:
    """The artifact as everybody loads it. Code in it must have been checked before.

    Raises:
        MissingDependencyError: If it is thin, and ``peft`` isn't installed.
    """
    if is_thin(folder) and find_spec("peft") is None:
        raise MissingDependencyError(
            "a thin artifact needs one more package: pip install 'st-embfilter[thin]'"
        )
    return SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=not is_thin(folder),
        trust_remote_code=is_exact(folder),
    )


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise VerificationError(fault)
