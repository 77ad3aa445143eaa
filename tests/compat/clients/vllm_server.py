"""Runs vLLM's OpenAI-compatible server on processors: MODEL [its options].

The command `vllm serve MODEL` is this module, but looks for a distribution named vllm, and that of
the processors' build has another name.
"""

import sys

from serving import free_port, serve

port = free_port()
command = [
    *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", sys.argv[1]),
    *("--runner", "pooling", "--host", "127.0.0.1", "--port", str(port)),
    # Not compiled: it starts in half a minute instead of two. A fifth of the memory is plenty.
    *("--enforce-eager", "--gpu-memory-utilization", "0.2", *sys.argv[2:]),
]
quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
serve(command, port, quiet, "vLLM")
