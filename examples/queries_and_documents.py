"""One prompt for what is searched for, another for what is searched in.

python examples/queries_and_documents.py SOURCE OUT
"""

import sys

from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained

source, out = sys.argv[1:]
model = build_model(
    source,
    query_prompt='Summarize the question: "{text}" in one word:"',
    document_prompt='Summarize the passage: "{text}" in one word:"',
)
save_pretrained(model, out)

# Anywhere, without st-embfilter:
model = SentenceTransformer(out)
queries = model.encode_query(["Who plays the guitar?"])
passages = model.encode_document(["A man is on stage with a guitar.", "The moon is full."])
print(model.similarity(queries, passages).shape)
