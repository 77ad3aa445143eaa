"""A running embedding server, in the dialect it speaks.

Servers differ in routes, in whether they scale vectors to length 1, and in what they do to a text
that is too long.
"""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from st_embfilter.errors import MisuseError, ServerError

# The OpenAI-compatible ones first: where a server has several, its clients use these.
ROUTES = ("/v1/embeddings", "/embeddings", "/embed")
# Cohere's, as vLLM has it: its `input_type` is the name of one of the model's prompts.
PROMPT_ROUTE = "/v2/embed"
# What a server answers where it has no such route.
NO_ROUTE = (404, 405)
TIMEOUT_SECONDS = 300


class EmbeddingServer:
    """A running server's embedding route, in the dialect it speaks.

    Args:
        url: The server's address, or that of its route: ``http://host:port``, ``…/v1``,
            ``…/v1/embeddings``, ``…/embed``.
        model: What the server calls the model; by default the first that it lists.
        api_key: Sent as a bearer token.

    Attributes:
        is_llama_cpp: Whether it is llama.cpp's.

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
        self.is_llama_cpp = False
        for self.route in [given] if given in ROUTES else ROUTES:
            if model is None and self.route != "/embed":
                self.model = self._first_model()
            try:
                self.embed("hello")
                return
            except HTTPError as error:
                if error.code not in NO_ROUTE:
                    raise ServerError(f"{self}: {said(error)}") from error
        raise ServerError(f"{url} has no embedding route: tried {', '.join(ROUTES)}")

    def __str__(self) -> str:
        return self.base + self.route

    def _first_model(self) -> str:
        try:
            listed = self._ask(self.route.replace("embeddings", "models"))
        except HTTPError:
            return "default"  # It serves one, and doesn't ask for its name.
        try:
            first = listed["data"][0]
            self.is_llama_cpp = first.get("owned_by") == "llamacpp"
            return str(first["id"])
        except (LookupError, TypeError) as error:
            raise ServerError(f"{self.base} lists its models in no known way") from error

    def embed(self, text: str | list[int], options: dict[str, Any] | None = None) -> list[float]:
        """One text's embedding.

        Args:
            text: The text, or its tokens where the server takes them.
            options: What the request says beside it.

        Raises:
            HTTPError: If the server refuses it.
        """
        if self.route == "/embed":
            body = {"inputs": [text], "normalize": False, "truncate": True}
            return self._ask_vector(self.route, body | (options or {}), 0)
        body = {"model": self.model, "input": [text]}
        return self._ask_vector(self.route, body | (options or {}), "data", 0, "embedding")

    def embed_as(self, text: str, prompt_name: str) -> list[float]:
        """One text's embedding with one of the model's prompts, as vLLM gives it.

        Raises:
            HTTPError: If the server has no such route, or refuses it.
        """
        body = {"model": self.model, "texts": [text], "embedding_types": ["float"]}
        body |= {"input_type": prompt_name}
        return self._ask_vector(PROMPT_ROUTE, body, "embeddings", "float", 0)

    def _ask_vector(self, path: str, body: dict[str, Any], *place: str | int) -> list[float]:
        """The numbers at a place of a route's answer."""
        answer = self._ask(path, body)
        try:
            for step in place:
                answer = answer[step]
            return [float(number) for number in answer]
        except (LookupError, TypeError, ValueError) as error:
            raise ServerError(
                f"{self.base}{path} answers, but not with embeddings: {error!r}"
            ) from error

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


def said(error: HTTPError) -> str:
    """A refusal in one line."""
    text = error.read(500).decode(errors="replace")
    return f"answered {error.code} ({' '.join(text.split())})"
