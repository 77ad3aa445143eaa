"""Check a running embedding server against an artifact's probes.

What must hold is the direction of every vector.
"""

from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import torch
from torch import Tensor

from st_embfilter.artifact.llama_cpp import check_llama_cpp
from st_embfilter.artifact.server import NO_ROUTE, PROMPT_ROUTE, EmbeddingServer, said
from st_embfilter.artifact.server_faults import compare_directions, distance, explain
from st_embfilter.artifact.verification import Check, load_plain
from st_embfilter.encoding.probes import PROBE_TOLERANCE
from st_embfilter.errors import MisuseError, ServerError
from st_embfilter.hub.download import artifact_folder
from st_embfilter.layout.manifest import Manifest

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
            in: ``float16`` or ``bfloat16``. llama.cpp's is taken as quantized.
        api_key: Sent as a bearer token.

    Returns:
        What was found; where the embeddings differ, the last check says how, if that is one of the
        known ways: filter, prompt or pooling left out or exchanged.

    Raises:
        ServerError: If the server doesn't answer.
        MisuseError: If the address or dtype is none.
    """
    folder = artifact_folder(artifact)
    manifest = Manifest.read(folder)
    probes = manifest.probes
    dtype = dtype or probes.dtype
    if dtype not in PROBE_TOLERANCE:
        raise MisuseError(f"the dtype {dtype} is unknown: use {', '.join(PROBE_TOLERANCE)}")
    server = EmbeddingServer(url, model, api_key)
    if server.is_llama_cpp:
        return check_llama_cpp(server, folder)
    found, refused, too_long = _embed_all(server, probes.texts)
    pairs = zip(probes.texts, probes.embeddings, strict=True)
    answered = {text: row for text, row in pairs if text not in refused}
    expected = torch.tensor(list(answered.values()))
    check = compare_directions(found, expected, PROBE_TOLERANCE[dtype])
    if not check.ok:
        why = explain(folder, list(answered), found, PROBE_TOLERANCE["bfloat16"])
        check = replace(check, detail=f"{check.detail}: {why}")
    told = [Check("server", True, f"{server}, texts that are too long are {too_long}"), check]
    if manifest.prompts:
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
        except HTTPError as error:
            if error.code not in NO_ROUTE:
                return Check("prompts", False, f"{PROMPT_ROUTE} {said(error)}")
            return Check(
                "prompts",
                True,
                f"the server applies none by its name (no {PROMPT_ROUTE}): whoever asks puts the "
                f"front of {', '.join(model.prompts)} before the text",
            )
        if not distance(found, expected[:, : found.shape[1]]) <= tolerance:
            wrong.append(name)
    if wrong:
        return Check("prompts", False, f"{PROMPT_ROUTE} gives others for {', '.join(wrong)}")
    return Check("prompts", True, f"{PROMPT_ROUTE} with input_type {', '.join(model.prompts)}")


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
