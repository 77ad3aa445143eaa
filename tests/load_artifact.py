"""Run in an interpreter without the package: load a model, embed texts, print them as JSON."""

import importlib.util
import json
import sys

from sentence_transformers import SentenceTransformer

assert importlib.util.find_spec("st_embfilter") is None, "this interpreter has the package"
path, dimensions, texts = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
model = SentenceTransformer(path, device="cpu", truncate_dim=dimensions or None)
print(json.dumps(model.encode(texts).tolist()))
