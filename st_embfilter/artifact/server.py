"""Check a running embedding server against an artifact's probes, and name what differs.

Servers differ in routes, in whether they scale vectors to length 1, and in what they do to a text
that is too long. What must hold is the direction of every vector.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import normalize

from st_embfilter._compat import Pooling, pooling_modes, tokenize
from st_embfilter.artifact.verification import Check, load_plain
from st_embfilter.encoding.probes import PROBE_TOLERANCE, relative_difference
from st_embfilter.errors import MisuseError, ServerError
from st_embfilter.hub.download import artifact_folder
from st_embfilter.layout.manifest import Manifest
from st_embfilter.pipeline.prompts import PLACEHOLDER

# The OpenAI-compatible ones first: where a server has several, its clients use these.
ROUTES = ("/v1/embeddings", "/embeddings", "/embed")
TIMEOUT_SECONDS = 300
RIGHT = "nothing is wrong"
# Those that give different directions.
POOLINGS = ("lasttoken", "mean", "weightedmean", "cls", "max")
# What a server answers to a text that is longer than it takes.
TOO_LONG = (400, 413, 422)
# vLLM refuses such texts unless a request says this; -1 is the model's own limit.
CUT = {"truncate_prompt_tokens": -1}


class EmbeddingServer:
    """A running server's embedding route, in the dialect it speaks.

    Args:
        url: The server's address, or that of its route: ``http://host:port``, ``…/v1``,
            ``…/v1/embeddings``, ``…/embed``.
        model: What the server calls the model; by default the first that it lists.
        api_key: Sent as a bearer token.

    Raises:
        MisuseError: If the address is none.
        ServerError: If it doesn't answer, or has no embedding route.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise MisuseError(f"{url} is no address: give http://host:port")
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        base = url.rstrip("/").removesuffix("/v1")
        for route in ROUTES:
            base = base.removesuffix(route)
        self.base = base
        given = url.rstrip("/").removeprefix(base)
        self.model = model
        for self.route in [given] if given in ROUTES else ROUTES:
            if model is None and self.route != "/embed":
                self.model = self._first_model()
            try:
                self.embed("hello")
                return
            except HTTPError as error:
                if error.code not in (404, 405):
                    raise ServerError(f"{self}: {_said(error)}") from error
        raise ServerError(f"{url} has no embedding route: tried {', '.join(ROUTES)}")

    def __str__(self) -> str:
        return self.base + self.route

    def _first_model(self) -> str:
        try:
            listed = self._ask(self.route.replace("embeddings", "models"))
        except HTTPError:
            return "default"  # It serves one, and doesn't ask for its name.
        try:
            return str(listed["data"][0]["id"])
        except (LookupError, TypeError) as error:
            raise ServerError(f"{self.base} lists its models in no known way") from error

    def embed(self, text: str, options: dict[str, Any] | None = None) -> list[float]:
        """One text's embedding.

        Args:
            text: The text.
            options: What the request says beside it.

        Raises:
            HTTPError: If the server refuses it.
        """
        if self.route == "/embed":
            body = {"inputs": [text], "normalize": False, "truncate": True}
        else:
            body = {"model": self.model, "input": [text]}
        answer = self._ask(self.route, body | (options or {}))
        try:
            vector = answer[0] if self.route == "/embed" else answer["data"][0]["embedding"]
            return [float(number) for number in vector]
        except (LookupError, TypeError, ValueError) as error:
            raise ServerError(f"{self} answers, but not with embeddings: {error!r}") from error

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.base + path, data, self.headers)
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except HTTPError:
            raise
        except (URLError, OSError, ValueError) as error:
            raise ServerError(f"{self.base} doesn't answer as a server should: {error}") from error


def _said(error: HTTPError) -> str:
    """A refusal in one line."""
    text = error.read(500).decode(errors="replace")
    return f"answered {error.code} ({' '.join(text.split())})"


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
    return [Check("server", True, f"{server}, texts that are too long are {too_long}"), check]


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
                raise ServerError(f"{server}: {_said(error)}") from error
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
