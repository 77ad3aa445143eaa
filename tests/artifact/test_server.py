"""`verify --url`: the right server passes, a wrong one is told what it does wrong."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from st_embfilter import build_model, save_pretrained
from st_embfilter._compat import Pooling
from st_embfilter.artifact.server_check import check_server
from st_embfilter.cli import main
from st_embfilter.errors import MisuseError, ServerError
from support.json_server import JsonHandler, serve_json

pytestmark = pytest.mark.slow


@contextmanager
def serve_model(
    model: SentenceTransformer,
    routes: tuple[str, ...] = ("/v1/embeddings",),
    *,
    unit: bool = False,
    limit: int | None = None,
    cuts: bool = False,
    by_name: bool = True,
    named: int = 200,
    dimensions: int | None = None,
    key: str | None = None,
) -> Iterator[str]:
    """A server of the OpenAI-compatible or Text Embeddings Inference's route."""

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            listed = self.path.removesuffix("models") + "embeddings" in routes
            self.reply({"data": [{"id": "served"}]}, 200 if listed else 404)

        def do_POST(self) -> None:
            body = self.read()
            texts = body.get("input") or body.get("inputs") or body.get("texts")
            if self.path not in routes:
                self.reply({}, 404)
            elif self.path == "/v2/embed" and named != 200:
                self.reply({"error": "no such input_type"}, named)
            elif key and self.headers["Authorization"] != f"Bearer {key}":
                self.reply({"error": "no key"}, 401)
            elif "input" in body and body["model"] != "served":
                self.reply({"error": "no such model"}, 400)
            elif (
                limit
                and max(map(len, texts)) > limit
                and not (cuts and body.get("truncate_prompt_tokens") == -1)
            ):
                self.reply({"error": "too long"}, 413)
            else:
                name = body.get("input_type") if by_name else None
                vectors = model.encode(texts, prompt_name=name) if name else model.encode(texts)
                vectors = np.asarray(vectors)[:, :dimensions]
                if unit:
                    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                rows = vectors.tolist()
                answer: Any = {"data": [{"embedding": row} for row in rows]}
                if self.path == "/v2/embed":
                    answer = {"embeddings": {"float": rows}}
                self.reply(rows if self.path == "/embed" else answer)

    with serve_json(Handler) as url:
        yield url


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("routes", "given"),
    [
        (("/v1/embeddings",), ""),
        (("/embeddings",), "/"),
        (("/embed",), ""),
        (("/embed",), "/embed"),
        (("/v1/embeddings", "/embed"), "/v1"),
        (("/v1/embeddings",), "/v1/embeddings"),
        (("/prefix/v1/embeddings",), "/prefix"),
    ],
)
@pytest.mark.parametrize("unit", [True, False])
def test_right_server(routes: tuple[str, ...], given: str, unit: bool, tiny_artifact: Path) -> None:
    with serve_model(load(tiny_artifact), routes, unit=unit) as url:
        server, embeddings = check_server(tiny_artifact, url + given)
    assert server.ok and "too long are answered" in server.detail
    assert embeddings.ok and "5 texts" in embeddings.detail
    assert ("length 1" in embeddings.detail) == unit


def test_server_that_refuses_long_texts(tiny_artifact: Path) -> None:
    with serve_model(load(tiny_artifact), limit=1000) as url:
        server, embeddings = check_server(tiny_artifact, url)
    assert "too long are refused" in server.detail
    assert embeddings.ok and "4 texts" in embeddings.detail


def test_server_that_cuts_long_texts_when_asked(tiny_artifact: Path) -> None:
    # As vLLM does.
    with serve_model(load(tiny_artifact), limit=1000, cuts=True) as url:
        server, embeddings = check_server(tiny_artifact, url)
    assert "cut if the request says truncate_prompt_tokens: -1" in server.detail
    assert embeddings.ok and "5 texts" in embeddings.detail


def test_server_of_lower_precision(tiny_artifact: Path) -> None:
    with serve_model(load(tiny_artifact).to(torch.float16)) as url:
        _, embeddings = check_server(tiny_artifact, url)
        assert not embeddings.ok and "in lower precision than it was built in" in embeddings.detail
        assert "--dtype" in embeddings.detail
        assert check_server(tiny_artifact, url, dtype="bfloat16")[1].ok


def test_server_of_fewer_dimensions(tiny_artifact: Path) -> None:
    with serve_model(load(tiny_artifact), dimensions=12) as url:
        _, embeddings = check_server(tiny_artifact, url)
    assert embeddings.ok and "the first 12 dimensions" in embeddings.detail


def test_prompts_by_name(tiny: Path, tmp_path: Path) -> None:
    # With a default prompt, as sentence-transformers alone applies it of itself.
    front = 'Summarize the {}: "{{text}}" in one word:"'
    model = build_model(
        tiny,
        band="edge",
        device="cpu",
        query_prompt=front.format("question"),
        document_prompt=front.format("passage"),
    )
    artifact = save_pretrained(model, tmp_path / "artifact")
    routes = ("/v1/embeddings", "/v2/embed")
    with serve_model(load(artifact), routes) as url:
        _, plain, prompts = check_server(artifact, url)
    assert plain.ok and prompts.ok
    assert "/v2/embed with input_type query, document, plain" in prompts.detail
    with serve_model(load(artifact), routes, by_name=False) as url:
        prompts = check_server(artifact, url)[2]
    assert not prompts.ok and "gives others for query, document" in prompts.detail
    with serve_model(load(artifact), routes, named=400) as url:
        prompts = check_server(artifact, url)[2]
    assert not prompts.ok and "/v2/embed answered 400" in prompts.detail


def drop_filter(model: SentenceTransformer) -> None:
    del model[2]


def drop_prompt(model: SentenceTransformer) -> None:
    tokenizer: Any = model.tokenizer
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["post_processor"] = None
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spec))


def mean_pooling(model: SentenceTransformer) -> None:
    model[1] = Pooling(model[2].in_features, pooling_mode="mean")


def double_prompt(model: SentenceTransformer) -> None:
    encode = model.encode

    def wrapped(texts: list[str]) -> Any:
        return encode([f'Summarize the sentence: "{text}" in one word:"' for text in texts])

    model.encode = wrapped  # type: ignore[method-assign, assignment]


FAULTS = {
    "the filter is left out": [drop_filter],
    "the prompt is missing": [drop_prompt],
    "the prompt is there twice": [double_prompt],
    "the pooling is mean instead of lasttoken": [mean_pooling],
    "the filter is left out and the prompt is missing": [drop_prompt, drop_filter],
    "the prompt is missing and the pooling is mean instead of lasttoken": [
        drop_prompt,
        mean_pooling,
    ],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_server_is_told_what_is_wrong(fault: str, tiny_artifact: Path) -> None:
    model = load(tiny_artifact)
    for change in FAULTS[fault]:
        change(model)
    with serve_model(model, unit=True) as url:
        server, embeddings = check_server(tiny_artifact, url)
    assert server.ok and not embeddings.ok
    assert f"serves this model, but {fault} (" in embeddings.detail, embeddings.detail


def test_default_prompt_left_out(tiny: Path, tmp_path: Path) -> None:
    """What a server does that doesn't read config_sentence_transformers.json."""
    model = build_model(
        tiny,
        band="edge",
        prompt='A text: "{text}"',
        query_prompt='A question: "{text}"',
        device="cpu",
    )
    artifact = save_pretrained(model, tmp_path / "artifact")
    served = load(artifact)
    with serve_model(served) as url:
        assert check_server(artifact, url)[1].ok
        served.default_prompt_name = None
        _, embeddings, prompts = check_server(artifact, url)
    assert not embeddings.ok and "the default prompt is missing" in embeddings.detail
    assert prompts.ok and "puts the front of query, document before" in prompts.detail


def test_another_model(tiny_artifact: Path, tiny: Path) -> None:
    other = build_model(tiny, band="tail", device="cpu")
    with serve_model(other) as url:
        _, embeddings = check_server(tiny_artifact, url)
    assert not embeddings.ok and "not known how" in embeddings.detail
    with serve_model(build_model(tiny, band="edge", ratio=1, device="cpu")) as url:
        _, embeddings = check_server(tiny_artifact, url)
    assert not embeddings.ok and "not known how" in embeddings.detail


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_what_is_too_long_is_cut_elsewhere(fault: str, tiny_artifact: Path) -> None:
    """As vLLM does with Echo, where it has another pooling too."""
    model = load(tiny_artifact)
    for change in FAULTS.get(fault, []):
        change(model)
    model.max_seq_length = 100
    with serve_model(model) as url:
        _, embeddings = check_server(tiny_artifact, url)
    assert not embeddings.ok
    said = f"{fault}, and the longest text is cut" if fault else "the longest text is cut"
    assert f"serves this model, but {said} in another place" in embeddings.detail


def test_half_precision_has_its_own_tolerance(tiny_artifact: Path) -> None:
    model = load(tiny_artifact).half()
    with serve_model(model) as url:
        _, strict = check_server(tiny_artifact, url)
        _, loose = check_server(tiny_artifact, url, dtype="float16")
    assert loose.ok and not strict.ok


def test_nan_is_not_the_same(tiny_artifact: Path) -> None:
    model = load(tiny_artifact)
    model.encode = lambda texts: np.full((len(texts), 24), np.nan)  # type: ignore[method-assign]
    with serve_model(model) as url:
        _, embeddings = check_server(tiny_artifact, url)
    assert not embeddings.ok and "NaN" in embeddings.detail


def test_answer_without_embeddings(tiny_artifact: Path) -> None:
    model = load(tiny_artifact)
    model.encode = lambda texts: np.array([["no", "number"]])  # type: ignore[method-assign]
    with serve_model(model) as url, pytest.raises(ServerError, match="not with embeddings"):
        check_server(tiny_artifact, url)


def test_key_and_name(tiny_artifact: Path) -> None:
    with serve_model(load(tiny_artifact), key="secret") as url:
        with pytest.raises(ServerError, match=r"401.*no key"):
            check_server(tiny_artifact, url)
        assert check_server(tiny_artifact, url, api_key="secret")[1].ok
        with pytest.raises(ServerError, match=r"400.*no such model"):
            check_server(tiny_artifact, url, api_key="secret", model="other")


def test_bad_addresses(tiny_artifact: Path) -> None:
    with pytest.raises(MisuseError, match="is no address"):
        check_server(tiny_artifact, "localhost:8000")
    with pytest.raises(ServerError, match=r"127.0.0.1:9 doesn't answer"):
        check_server(tiny_artifact, "http://127.0.0.1:9")
    with serve_model(load(tiny_artifact), ("/other",)) as url:
        with pytest.raises(ServerError, match=r"no embedding route.*/embed"):
            check_server(tiny_artifact, url)
        with pytest.raises(MisuseError, match="int8"):
            check_server(tiny_artifact, url, dtype="int8")


def test_command_line(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_artifact)
    drop_filter(model)
    with serve_model(model) as url:
        arguments = ["st-embfilter", "verify", str(tiny_artifact), "--url", url, "--json"]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
    output = capsys.readouterr()
    assert ended.value.code == 1 and "the filter is left out" in json.loads(output.out)[1]["detail"]
    assert f"error: {url} doesn't give the embeddings of" in output.err.splitlines()[-1]
