"""Packed weights give the embeddings of the plain ones, or aren't used."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from st_embfilter import PrefixEncoder
from st_embfilter.encoding import packed_weights
from st_embfilter.encoding.loading import load_model
from st_embfilter.encoding.packed_weights import pack_weights
from support.command_line import Run

TEXTS = ["One text.", "Another one, which is a good deal longer than the first.", "?", ""]


def is_packed(model: SentenceTransformer) -> bool:
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    packed = {layer.weight.is_mkldnn for layer in layers}
    assert len(packed) == 1
    return packed.pop()


def packs(dtype: torch.dtype) -> bool:
    return packed_weights._gains(nn.Linear(2, 2).to(dtype))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_embeddings_are_the_same(dtype: torch.dtype, atol: float, tiny_artifact: Path) -> None:
    if not packs(dtype):
        pytest.skip(f"this processor's products of {dtype} want no other layout")
    model = load_model(tiny_artifact, device="cpu", dtype=dtype)
    expected = model.encode(TEXTS, normalize_embeddings=True)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    pack_weights(model)
    assert is_packed(model)
    assert next(model.parameters()).dtype == dtype
    found = model.encode(TEXTS, normalize_embeddings=True)
    assert abs(found - expected).max() <= atol
    encoder = PrefixEncoder(model)
    assert abs(encoder.encode(TEXTS, normalize_embeddings=True) - expected).max() <= 10 * atol
    assert encoder.reason is None
    for name, weight in model.state_dict().items():
        plain = weight.to_dense() if weight.is_mkldnn else weight
        assert torch.equal(plain, weights[name])


def fails(layer: nn.Linear, rows: Tensor) -> Tensor:
    raise RuntimeError("no such product here")


def is_wrong(layer: nn.Linear, rows: Tensor) -> Tensor:
    return torch.ones(*rows.shape[:-1], layer.out_features)


@pytest.mark.parametrize("product", [fails, is_wrong])
def test_a_model_that_cannot_be_packed_stays_as_it_was(
    product: object, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packs(torch.float32):
        pytest.skip("this processor's products want no other layout")
    monkeypatch.setattr(packed_weights, "_product", product)
    model = load_model(tiny_artifact, device="cpu")
    expected = model.encode(TEXTS)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    pack_weights(model)
    assert not is_packed(model)
    assert (model.encode(TEXTS) == expected).all()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_other_dtypes_are_left_alone(tiny_artifact: Path) -> None:
    model = load_model(tiny_artifact, device="cpu", dtype=torch.float64)
    pack_weights(model)
    assert not is_packed(model)


def test_the_command_packs(
    run: Run, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SentenceTransformer] = []
    monkeypatch.setattr(packed_weights, "pack_weights", seen.append)
    (tmp_path / "texts.txt").write_text("One text.\nAnother.\n")
    out = tmp_path / "out.npy"
    result = run("encode", str(tiny_artifact), str(tmp_path / "texts.txt"), "--out", str(out))
    assert result.returncode == 0 and len(seen) == 1
