"""vLLM without its server, on processors."""

import os

os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"

from client import main
from vllm import LLM, PoolingParams


def embed(name, texts, options):
    dimensions = options.pop("dimensions", None)
    model = LLM(model=name, runner="pooling", enforce_eager=True, **options)
    outputs = model.embed(
        texts,
        pooling_params=PoolingParams(dimensions=dimensions, use_activation=False),
        tokenization_kwargs={"truncate_prompt_tokens": -1},
    )
    return [output.outputs.embedding for output in outputs]


if __name__ == "__main__":  # Its workers import this file.
    main(embed)
