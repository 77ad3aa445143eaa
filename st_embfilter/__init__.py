"""Text embeddings from any causal language model, with EmbedFilter (arXiv 2606.07502).

The names below are imported when they are first used, so that ``st-embfilter --help`` and reading
a spectrum don't wait for sentence-transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_embfilter.artifact import save_pretrained
    from st_embfilter.bands import band_indices
    from st_embfilter.filter_module import FilterModule
    from st_embfilter.lens import logit_lens
    from st_embfilter.pipeline import build_model
    from st_embfilter.publishing import publish, push_to_hub
    from st_embfilter.spectrum import Spectrum
    from st_embfilter.transforming import transform_file
    from st_embfilter.unembedding import Unembedding
    from st_embfilter.vectors import VectorFilter
    from st_embfilter.verification import verify

__version__ = "0.1.0"

_HOMES = {
    "FilterModule": "filter_module",
    "Spectrum": "spectrum",
    "Unembedding": "unembedding",
    "VectorFilter": "vectors",
    "band_indices": "bands",
    "build_model": "pipeline",
    "logit_lens": "lens",
    "publish": "publishing",
    "push_to_hub": "publishing",
    "save_pretrained": "artifact",
    "transform_file": "transforming",
    "verify": "verification",
}
__all__ = [
    "FilterModule",
    "Spectrum",
    "Unembedding",
    "VectorFilter",
    "band_indices",
    "build_model",
    "logit_lens",
    "publish",
    "push_to_hub",
    "save_pretrained",
    "transform_file",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
