"""Unembedding matrices as real ones are, made; and how far two spectra's bands are apart."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from st_embfilter.spectral.bands import band_indices

RATIOS = (2, 4, 8)


def make_matrix(height: int, width: int, device: str = "cpu") -> Tensor:
    """A mean row, and random rows whose directions decay by one order of magnitude, rotated."""
    generator = torch.Generator(device).manual_seed(0)
    here = {"generator": generator, "device": device}
    rotation = torch.linalg.qr(torch.randn(width, width, **here))[0]
    scaled = torch.logspace(0, -1, width, device=device)[:, None] * rotation
    mean = torch.randn(width, **here) / 3
    w = torch.empty(height, width, device=device)
    for rows in w.split(8192):
        rows.copy_(torch.randn(len(rows), width, **here) @ scaled + mean)
    return w


def save(w: Tensor, folder: Path) -> None:
    """As the head of a language model whose other weights nobody reads."""
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": w.shape[1],
        "vocab_size": w.shape[0],
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"lm_head.weight": w}, folder / "model.safetensors")


def projector_errors(exact: Tensor, found: Tensor) -> list[float]:
    """The sine of the largest angle between two bands, for each τ."""
    errors = []
    for ratio in RATIOS:
        indices = band_indices(len(exact), len(exact) // ratio, "edge")
        a, b = exact[indices].double(), found[indices].double()
        errors.append(float(torch.linalg.matrix_norm(b - (b @ a.T) @ a, ord=2)))
    return errors
