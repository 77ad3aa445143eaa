"""vLLM, loaded once: for every line on standard input it embeds TEXTS (JSON) and prints seconds."""

import json
import os
import sys
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
# By itself it leaves one processor to the process that hands it the texts, which waits here.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{(os.cpu_count() or 1) - 1}")
from vllm import LLM, PoolingParams

if __name__ == "__main__":  # Its workers import this file.
    _, name, dtype, texts = sys.argv
    given = json.loads(texts)
    model = LLM(model=name, runner="pooling", dtype=dtype)
    pooling = PoolingParams(use_activation=False)
    for _ in sys.stdin:
        start = time.perf_counter()
        model.embed(given, pooling_params=pooling, use_tqdm=False)
        print(f"\n{time.perf_counter() - start}", flush=True)
