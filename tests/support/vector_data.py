"""Raw vectors, and an artifact of which only the filter's files are there."""

import importlib.util
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

WIDTH, KEPT = 24, 16
# Up to 5.1 at least, sentence-transformers' int8 is rounded towards zero; since, downwards as here.
needs_todays_rounding = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers.util.quantization") is None,
    reason="this sentence-transformers rounds int8 otherwise",
)


def make_filter(folder: Path, width: int = WIDTH, kept: int = KEPT, band: str = "edge") -> Path:
    """Random orthonormal rows."""
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((width, width)))[0][:kept].astype(np.float32)
    (folder / "2_Dense").mkdir(parents=True)
    save_file({"linear.weight": np.ascontiguousarray(rows)}, folder / "2_Dense/model.safetensors")
    config = {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}
    (folder / "2_Dense/config.json").write_text(json.dumps(config))
    manifest = {"sha256": "0" * 64, "source": "org/llm", "band": band, "indices": list(range(kept))}
    (folder / "embfilter.json").write_text(json.dumps(manifest))
    return folder


def matrix_of(folder: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(folder / "2_Dense/model.safetensors")["linear.weight"]


def raw_vectors(rows: int, width: int = WIDTH, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let a write fail in the middle, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
