"""Runs llama.cpp's own server, in this process: FILE [--pooling POOLING].

As `llama-server --embeddings -m FILE --pooling POOLING --parallel 4`.
"""

import os
import sys

import xllamacpp
from serving import free_port

parallel, context = 4, 2048
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.embedding = True
if len(sys.argv) > 2:
    kind = f"LLAMA_POOLING_TYPE_{sys.argv[3].upper()}"
    settings.pooling_type = getattr(xllamacpp.llama_pooling_type, kind)
settings.hostnames, settings.port = ["127.0.0.1"], free_port()
settings.n_parallel, settings.n_ctx = parallel, parallel * context
settings.n_batch = settings.n_ubatch = context
# As llama-server itself reads it; beside other work, several wait for each other.
settings.cpuparams.n_threads = int(os.environ.get("LLAMA_ARG_THREADS", os.cpu_count() or 1))
server = xllamacpp.Server(settings)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)  # Its threads don't end by themselves.
