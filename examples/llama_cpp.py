"""Embeddings from llama.cpp's server: whoever asks writes the prompt, and applies the filter.

    llama-server --embeddings --pooling last -m MODEL.gguf
    python examples/llama_cpp.py DIR [http://127.0.0.1:8080]

MODEL.gguf is any GGUF file of the language model that the artifact DIR was built from, as Ollama
and LM Studio fetch it. Of DIR only the filter is read. (With a file that `st-embfilter export DIR
gguf` made, leave out the filter and take the first numbers.)
"""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from st_embfilter import VectorFilter

artifact = Path(sys.argv[1])
server = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8080"
texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell."]

template = json.loads((artifact / "embfilter.json").read_text())["prompt"]
prompts = [template.replace("{text}", text) for text in texts]
request = Request(
    f"{server}/v1/embeddings",
    json.dumps({"input": prompts}).encode(),
    {"Content-Type": "application/json"},
)
with urlopen(request) as answer:
    rows = sorted(json.load(answer)["data"], key=lambda row: row["index"])
raw = np.array([row["embedding"] for row in rows], dtype=np.float32)

embeddings = VectorFilter.from_artifact(artifact).apply(raw)
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
print(embeddings.shape)
print((embeddings @ embeddings.T).round(2).tolist())
