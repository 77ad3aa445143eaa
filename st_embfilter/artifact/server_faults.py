"""Whether a server's embeddings are an artifact's; and if not, which known fault gives them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import normalize

from st_embfilter._compat import Pooling, pooling_modes, tokenize
from st_embfilter.artifact.verification import Check, load_plain
from st_embfilter.encoding.probes import relative_difference
from st_embfilter.layout.manifest import Manifest
from st_embfilter.pipeline.prompts import PLACEHOLDER

# Those that give different directions.
POOLINGS = ("lasttoken", "mean", "weightedmean", "cls", "max")
RIGHT = "nothing is wrong"


def compare_directions(found: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Whether embeddings have the directions of the expected ones, or of their first numbers."""
    width, full = found.shape[1], expected.shape[1]
    if width > full:
        return Check("embeddings", False, f"have {width} numbers, not {full}")
    error = distance(found, expected[:, :width])
    if not error <= tolerance:  # NaN is not.
        what = f"differ by up to {error:.1e} of their length (at most {tolerance:.0e})"
        return Check("embeddings", False, what)
    part = "" if width == full else f", the first {width} dimensions"
    unit = bool(((found.norm(dim=1) - 1).abs() < 1e-3).all())
    detail = f"{len(found)} texts, off by at most {error:.1e}{part}"
    return Check("embeddings", True, detail + (", scaled to length 1" if unit else ""))


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest distance between two rows, all scaled to length 1."""
    return relative_difference(normalize(found), normalize(expected))


def explain(folder: Path, texts: list[str], found: Tensor, tolerance: float) -> str:
    """What a server does that gives these embeddings, as far as it can be told.

    Args:
        folder: The artifact's.
        texts: The texts.
        found: The server's embeddings of them.
        tolerance: How near they must be to what a known fault gives.
    """
    if not found.isfinite().all():
        return "they hold NaN or infinity"
    width = found.shape[1]
    variants = [
        (name, vectors[:, :width])
        for name, vectors in _variants(folder, texts)
        if vectors.shape[1] >= width
    ]
    if not variants:
        return "it serves another model"
    nearest, name = min((distance(found, vectors), name) for name, vectors in variants)
    if nearest > tolerance:
        shorter = sorted(range(len(texts)), key=lambda text: len(texts[text]))[:-1]
        of_shorter, fault = min(
            (distance(found[shorter], vectors[shorter]), name) for name, vectors in variants
        )
        if of_shorter <= tolerance:
            but = "" if fault == RIGHT else f"{fault}, and "
            return f"it serves this model, but {but}the longest text is cut in another place"
        return f"it is not known how (the nearest guess, {name}, is off by {nearest:.1e})"
    if name == RIGHT:
        return (
            "it serves this model, in lower precision than it was built in: start it in that "
            "(vLLM: --dtype float32), or say what it computes in with --dtype"
        )
    return f"it serves this model, but {name} (then off by {nearest:.1e})"


def _variants(folder: Path, texts: list[str]) -> Iterator[tuple[str, Tensor]]:
    """What servers are known to do wrong, and what embeddings that gives."""
    model = load_plain(folder)
    modules: Any = list(model)
    transformer, stored, dense = modules
    (right,) = pooling_modes(stored)
    template = Manifest.read(folder).prompt
    for prompt, features in _tokenized(model, texts, template):
        with torch.inference_mode():
            hidden = transformer(features)
        for mode in POOLINGS:
            pooling = stored if mode == right else Pooling(dense.in_features, pooling_mode=mode)
            pooled_by = "" if mode == right else f"the pooling is {mode} instead of {right}"
            with torch.inference_mode():
                pooled = pooling(dict(hidden))["sentence_embedding"].float()
                filtered = dense({"sentence_embedding": pooled})["sentence_embedding"]
            for filter_, vectors in (("", filtered), ("the filter is left out", pooled)):
                faults = [fault for fault in (filter_, prompt, pooled_by) if fault]
                yield " and ".join(faults) or RIGHT, vectors


def _tokenized(
    model: SentenceTransformer, texts: list[str], template: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Texts as tokens, rightly and with a fault of the prompt."""
    default: str = model.prompts.get(model.default_prompt_name or "") or ""
    yield "", tokenize(model, [f"{default}{text}" for text in texts])
    if default:
        yield "the default prompt is missing", tokenize(model, texts)
    doubled = [template.replace(PLACEHOLDER, text) for text in texts]
    yield "the prompt is there twice", tokenize(model, doubled)
    for bos in {"", str(model.tokenizer.bos_token or "")}:
        bare = model.tokenizer(
            [bos + text for text in texts],
            add_special_tokens=False,
            padding=True,
            truncation=True,
            max_length=model.max_seq_length,
            return_tensors="pt",
        )
        yield "the prompt is missing", dict(bare)
