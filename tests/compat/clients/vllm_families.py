"""vLLM on many models: TEXTS, then their folders. Imported once, and a process for each model.

Prints a line of JSON for each, what it gives or why it can't.
"""

import json
import os
import sys

os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
# No compiler's processes before the fork, and none of its own after it.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from vllm_client import embed


def told(name, texts):
    try:
        return {"embeddings": embed(name, texts, {"dtype": "float32"})}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


texts, *folders = sys.argv[1:]
for folder in folders:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(told(folder, json.loads(texts))).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        answer = said.read() or json.dumps({"error": "its process died"})
    os.wait()
    print("\n" + answer, flush=True)
