"""Texts whose embeddings an artifact carries: any runtime can be held against its builder."""

from sentence_transformers import SentenceTransformer
from torch import Tensor

# Short and long, ASCII and not, one beyond the usual limit of 512 tokens. None begins or ends
# with a space, as releases before 6.0 strip texts, or has line breaks, which LangChain takes out.
PROBES = [
    "embedding",
    "The cat sat on the mat, and nobody minded.",
    "Où est la bibliothèque ? 図書館はどこですか。",
    "area = lambda r: 3.14159 * r ** 2  # of a circle",
    " ".join(f"Sentence {number} of a text that is too long." for number in range(120)),
]
# How far a probe's embedding may be from the stored one, in lengths of the latter. On SmolLM2 the
# same runtime is off by 4e-4 in float16 and 3e-3 in bfloat16, as it rounds the filter; a runtime
# that computes in float32 what was built in half precision is off by more.
PROBE_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def encode_probes(model: SentenceTransformer, texts: list[str]) -> Tensor:
    """The texts' embeddings, ``(len(texts), k)`` float32, whatever the model is cut to."""
    # (The method for this has another name in every other release.)
    kept, model.truncate_dim = model.truncate_dim, None
    try:
        embeddings = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    finally:
        model.truncate_dim = kept
    return embeddings.float().cpu()


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest distance between two rows, in lengths of the expected one."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
