"""One artifact, every filter ratio: choose the number of dimensions when you load it.

python examples/choose_dimensions.py ARTIFACT
"""

import sys

from sentence_transformers import SentenceTransformer

artifact = sys.argv[1]
texts = ["A man is eating.", "Somebody has lunch.", "The moon is full."]
width = SentenceTransformer(artifact).encode("").shape[0]
for dimensions in (width, width // 2, width // 4):
    model = SentenceTransformer(artifact, truncate_dim=dimensions)
    scores = model.similarity(model.encode(texts[:1]), model.encode(texts[1:]))
    print(f"{dimensions:5} dimensions, {4 * dimensions:6} bytes:", scores.tolist()[0])
