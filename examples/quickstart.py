"""From a causal language model to an embedding model on disk, and back.

python examples/quickstart.py [SOURCE] [OUT]
"""

import sys

from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained

source = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"
out = sys.argv[2] if len(sys.argv) > 2 else "smollm2-embedding"

save_pretrained(build_model(source, ratio=2), out)

model = SentenceTransformer(out)  # from here on, nothing needs st_embfilter
embeddings = model.encode(["A man is eating.", "Somebody has lunch.", "The moon is full."])
print(embeddings.shape)
print(model.similarity(embeddings, embeddings))
