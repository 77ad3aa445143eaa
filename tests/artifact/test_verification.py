"""verify: a sound artifact passes, and each kind of damage is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from st_embfilter import build_model, save_pretrained, verify
from st_embfilter.artifact.verification import run_checks
from st_embfilter.errors import SourceNotFoundError, VerificationError
from support.models import tiny_llama


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(tiny_artifact, tmp_path / "artifact")


def test_a_sound_artifact(tiny_artifact: Path) -> None:
    checks = verify(tiny_artifact)
    assert [check.name for check in checks] == [
        "files",
        "modules",
        "filter matrix",
        "provenance",
        "probe embeddings",
    ]
    assert all(check.ok for check in checks)


@pytest.mark.parametrize("band", ["tail", "head", "mid", "random", [5, 3, 11]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_bands_and_dtypes(tmp_path: Path, band: object, dtype: torch.dtype) -> None:
    source = tiny_llama(tmp_path / "llm", dtype=dtype, initializer_range=0.1)
    model = build_model(source, k=7, band=band, seed=3, device="cpu")  # type: ignore[arg-type]
    verify(save_pretrained(model, tmp_path / "artifact"))


def edit_json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(artifact: Path) -> None:
        content = json.loads((artifact / name).read_text())
        change(content)
        (artifact / name).write_text(json.dumps(content))

    return edit


def edit_matrix(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(artifact: Path) -> None:
        path = artifact / "2_Dense" / "model.safetensors"
        save_file({"linear.weight": change(load_file(path)["linear.weight"]).contiguous()}, path)

    return edit


def truncate(name: str) -> Callable[[Path], None]:
    return lambda artifact: (artifact / name).write_bytes((artifact / name).read_bytes()[:-100])


def double_rotation(config: dict) -> None:
    config["rope_theta"] = 500.0
    config["rope_parameters"] = {"rope_theta": 500.0, "rope_type": "default"}


DAMAGE = {
    "no manifest": ("files", lambda a: (a / "embfilter.json").unlink()),
    "no weights": ("files", lambda a: (a / "model.safetensors").unlink()),
    "pickle": ("files", lambda a: (a / "pytorch_model.bin").write_bytes(b"\x80")),
    "code": ("files", lambda a: (a / "2_Dense" / "modeling.py").write_text("")),
    "module not JSON": ("modules", lambda a: (a / "modules.json").write_text("{")),
    "new class paths": (
        "modules",
        lambda a: (a / "modules.json").write_text(
            (a / "modules.json").read_text().replace("models.Dense", "base.modules.dense.Dense")
        ),
    ),
    "activation": ("modules", edit_json("2_Dense/config.json", lambda c: c.pop("bias"))),
    "matrix cut off": ("filter matrix", truncate("2_Dense/model.safetensors")),
    "matrix scaled": ("filter matrix", edit_matrix(lambda w: w * 1.001)),
    "matrix NaN": ("filter matrix", edit_matrix(lambda w: w * float("nan"))),
    "matrix short": ("filter matrix", edit_matrix(lambda w: w[:-1])),
    "matrix half": ("filter matrix", edit_matrix(lambda w: w.bfloat16())),
    "pooling width": (
        "filter matrix",
        edit_json("1_Pooling/config.json", lambda c: c.update(word_embedding_dimension=64)),
    ),
    "no hash": ("provenance", edit_json("embfilter.json", lambda c: c.pop("sha256"))),
    "other band": ("provenance", edit_json("embfilter.json", lambda c: c.update(band="tail"))),
    "values": ("provenance", edit_json("embfilter.json", lambda c: c["singular_values"].pop())),
    "rows swapped": ("probe embeddings", edit_matrix(lambda w: w.flip(0))),
    "sign": ("probe embeddings", edit_matrix(lambda w: -w)),
    "backbone cut off": ("probe embeddings", truncate("model.safetensors")),
    "rotary base": ("probe embeddings", edit_json("config.json", double_rotation)),
    "tokenizer": ("probe embeddings", lambda a: (a / "tokenizer.json").write_text("{}")),
    "limit": (
        "probe embeddings",
        edit_json("sentence_bert_config.json", lambda c: c.update(max_seq_length=20)),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(artifact: Path, name: str) -> None:
    check, damage = DAMAGE[name]
    damage(artifact)
    with pytest.raises(VerificationError, match=check):
        verify(artifact)
    last = run_checks(artifact)[-1]
    assert (last.name, last.ok) == (check, False) and last.detail


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        verify(tmp_path / "missing")
