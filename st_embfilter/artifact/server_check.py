"""Check a running embedding server against an artifact's probes, and name what differs.

What must hold is the direction of every vector.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import normalize

from st_embfilter._compat import Pooling, pooling_modes, tokenize
from st_embfilter.artifact.server import PROMPT_ROUTE, EmbeddingServer, said
from st_embfilter.artifact.verification import Check, load_plain
from st_embfilter.encoding.probes import PROBE_TOLERANCE, relative_difference
from st_embfilter.errors import MisuseError, ServerError
from st_embfilter.hub.download import artifact_folder
from st_embfilter.layout.manifest import Manifest
from st_embfilter.pipeline.prompts import PLACEHOLDER

# Those that give different directions.
POOLINGS = ("lasttoken", "mean", "weightedmean", "cls", "max")
RIGHT = "nothing is wrong"
# What a server answers to a text that is longer than it takes.
TOO_LONG = (400, 413, 422)
# vLLM refuses such texts unless a request says this; -1 is the model's own limit.
CUT = {"truncate_prompt_tokens": -1}


def check_server(
    artifact: str | Path,
    url: str,
    *,
    model: str | None = None,
    dtype: str | None = None,
    api_key: str | None = None,
) -> list[Check]:
    """Check that a running server gives an artifact's probe embeddings.

    Args:
        artifact: The artifact's folder, or ``org/name`` or ``org/name@revision`` on the hub.
        url: The server's address, see :class:`EmbeddingServer`.
        model: What the server calls the model, where it serves several.
        dtype: What the server computes in, if it is less precise than what the artifact was built
            in: ``float16`` or ``bfloat16``.
        api_key: Sent as a bearer token.

    Returns:
        What was found; where the embeddings differ, the last check says how, if that is one of the
        known ways: filter, prompt or pooling left out or exchanged.

    Raises:
        ServerError: If the server doesn't answer.
        MisuseError: If the address or dtype is none.
    """
    folder = artifact_folder(artifact)
    probes = Manifest.read(folder).probes
    dtype = dtype or probes.dtype
    if dtype not in PROBE_TOLERANCE:
        raise MisuseError(f"the dtype {dtype} is unknown: use {', '.join(PROBE_TOLERANCE)}")
    server = EmbeddingServer(url, model, api_key)
    found, refused, too_long = _embed_all(server, probes.texts)
    pairs = zip(probes.texts, probes.embeddings, strict=True)
    answered = {text: row for text, row in pairs if text not in refused}
    expected = torch.tensor(list(answered.values()))
    check = _compare_directions(found, expected, PROBE_TOLERANCE[dtype])
    if not check.ok:
        check = replace(check, detail=f"{check.detail}: {_explain(folder, list(answered), found)}")
    told = [Check("server", True, f"{server}, texts that are too long are {too_long}"), check]
    if Manifest.read(folder).prompts:
        told.append(_check_prompts(server, folder, probes.texts[0], PROBE_TOLERANCE[dtype]))
    return told


def _check_prompts(server: EmbeddingServer, folder: Path, text: str, tolerance: float) -> Check:
    """Whether the server applies the model's prompts of queries and documents, by their names."""
    model = load_plain(folder)
    wrong = []
    for name in model.prompts:
        expected = model.encode([text], prompt_name=name, convert_to_tensor=True).float()
        try:
            found = torch.tensor([server.embed_as(text, name)])
        except HTTPError:
            return Check(
                "prompts",
                True,
                f"the server applies none by its name (no {PROMPT_ROUTE}): whoever asks puts the "
                f"front of {', '.join(model.prompts)} before the text",
            )
        if not _distance(found, expected[:, : found.shape[1]]) <= tolerance:
            wrong.append(name)
    if wrong:
        return Check("prompts", False, f"{PROMPT_ROUTE} gives others for {', '.join(wrong)}")
    return Check("prompts", True, f"{PROMPT_ROUTE} with input_type {', '.join(model.prompts)}")


def _compare_directions(found: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Whether embeddings have the directions of the expected ones, or of their first numbers."""
    width, full = found.shape[1], expected.shape[1]
    if width > full:
        return Check("embeddings", False, f"have {width} numbers, not {full}")
    error = _distance(found, expected[:, :width])
    if not error <= tolerance:  # NaN is not.
        what = f"differ by up to {error:.1e} of their length (at most {tolerance:.0e})"
        return Check("embeddings", False, what)
    part = "" if width == full else f", the first {width} dimensions"
    unit = bool(((found.norm(dim=1) - 1).abs() < 1e-3).all())
    detail = f"{len(found)} texts, off by at most {error:.1e}{part}"
    return Check("embeddings", True, detail + (", scaled to length 1" if unit else ""))


def _embed_all(server: EmbeddingServer, texts: list[str]) -> tuple[Tensor, list[str], str]:
    """The texts' embeddings, the texts that it refuses, and what it does to one too long."""
    rows, refused, too_long = [], [], "answered"
    longest = max(texts, key=len)
    for text in texts:
        try:
            rows.append(server.embed(text))
        except HTTPError as error:
            if text != longest or error.code not in TOO_LONG:
                raise ServerError(f"{server}: {said(error)}") from error
            try:
                rows.append(server.embed(text, CUT))
                too_long = "refused, but cut if the request says truncate_prompt_tokens: -1"
            except HTTPError:
                refused.append(text)
                too_long = "refused"
    if len({len(row) for row in rows}) > 1:
        raise ServerError(f"{server} gives embeddings of different lengths")
    return torch.tensor(rows), refused, too_long


def _distance(found: Tensor, expected: Tensor) -> float:
    """The largest distance between two rows, all scaled to length 1."""
    return relative_difference(normalize(found), normalize(expected))


def _explain(folder: Path, texts: list[str], found: Tensor) -> str:
    """What a server does that gives these embeddings, as far as it can be told."""
    if not found.isfinite().all():
        return "they hold NaN or infinity"
    differences = [
        (_distance(found, vectors[:, : found.shape[1]]), name)
        for name, vectors in _variants(folder, texts)
        if vectors.shape[1] >= found.shape[1]
    ]
    if not differences:
        return "it serves another model"
    nearest, name = min(differences)
    if nearest > PROBE_TOLERANCE["bfloat16"]:
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
