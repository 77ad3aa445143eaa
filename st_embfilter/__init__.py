"""Text embeddings from any causal language model, with EmbedFilter (arXiv 2606.07502).

The names below are imported when they are first used, so that ``st-embfilter --help`` and reading
a spectrum don't wait for sentence-transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from st_embfilter._version import __version__

if TYPE_CHECKING:
    from st_embfilter.artifact.publishing import publish, push_to_hub
    from st_embfilter.artifact.saving import save_pretrained
    from st_embfilter.artifact.verification import verify
    from st_embfilter.checkpoint.unembedding import Unembedding
    from st_embfilter.cluster.run import encode_corpus, transform_corpus
    from st_embfilter.encoding.loading import without_filter
    from st_embfilter.encoding.prefix_encoder import PrefixEncoder
    from st_embfilter.pipeline.building import build_model
    from st_embfilter.pipeline.filter_module import FilterModule
    from st_embfilter.spectral.bands import band_indices
    from st_embfilter.spectral.lens import logit_lens
    from st_embfilter.spectral.spectrum import Spectrum
    from st_embfilter.vectors.transform import transform_file
    from st_embfilter.vectors.vector_filter import VectorFilter

_HOMES = {
    "FilterModule": "pipeline.filter_module",
    "PrefixEncoder": "encoding.prefix_encoder",
    "Spectrum": "spectral.spectrum",
    "Unembedding": "checkpoint.unembedding",
    "VectorFilter": "vectors.vector_filter",
    "band_indices": "spectral.bands",
    "build_model": "pipeline.building",
    "encode_corpus": "cluster.run",
    "logit_lens": "spectral.lens",
    "publish": "artifact.publishing",
    "push_to_hub": "artifact.publishing",
    "save_pretrained": "artifact.saving",
    "transform_corpus": "cluster.run",
    "transform_file": "vectors.transform",
    "verify": "artifact.verification",
    "without_filter": "encoding.loading",
}
__all__ = [
    "FilterModule",
    "PrefixEncoder",
    "Spectrum",
    "Unembedding",
    "VectorFilter",
    "__version__",
    "band_indices",
    "build_model",
    "encode_corpus",
    "logit_lens",
    "publish",
    "push_to_hub",
    "save_pretrained",
    "transform_corpus",
    "transform_file",
    "verify",
    "without_filter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
