"""Run in an interpreter without the package: load a model, embed texts, print them as JSON."""

import importlib.util
import json
import sys

from sentence_transformers import SentenceTransformer

assert importlib.util.find_spec("st_embfilter") is None, "this interpreter has the package"
path, prompt_name, options, texts = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
model = SentenceTransformer(path, device="cpu", **options)
print(json.dumps(model.encode(texts, prompt_name=prompt_name or None).tolist()))
