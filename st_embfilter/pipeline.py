"""From a source to a SentenceTransformer that encodes plain text through the filter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from tokenizers.processors import ByteLevel

from st_embfilter._compat import (
    Transformer,
    embedding_dimension,
    last_token_pooling,
    load_backbone,
    set_text_only,
)
from st_embfilter.bands import BandName, kept_dimensions
from st_embfilter.errors import CheckpointError, MisuseError, SourceNotFoundError
from st_embfilter.filter_module import FilterModule, choose_indices, compute_spectrum
from st_embfilter.gguf_file import adds_bos, parsed_once
from st_embfilter.prompts import DEFAULT_PROMPT, bake_template, resolve_template
from st_embfilter.source import Source, resolve_source
from st_embfilter.spectrum import Spectrum
from st_embfilter.unembedding import Unembedding

# The reference's limit, prompt included.
DEFAULT_MAX_SEQ_LENGTH = 512


def build_model(
    source: str | Path,
    *,
    ratio: float | None = None,
    k: int | None = None,
    band: BandName | Sequence[int] = "edge",
    seed: int = 0,
    prompt: str = DEFAULT_PROMPT,
    max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH,
    dtype: torch.dtype | str = "auto",
    device: str | None = None,
    revision: str | None = None,
    spectrum: Spectrum | None = None,
    progress: bool = False,
) -> SentenceTransformer:
    """Make a text-embedding model of a causal language model.

    The pipeline is Transformer → Pooling (last token) → :class:`FilterModule`. It encodes plain
    text, whether the tokenizer has a chat template or not.

    Args:
        source: A folder with ``config.json`` and safetensors files, a GGUF file, or a hub id.
        ratio: The filter ratio τ: ``k = d // τ`` dimensions are kept. 2 if neither this nor ``k``
            is given.
        k: The number of kept dimensions.
        band: ``edge`` (the paper's), ``head``, ``tail``, ``mid``, ``random``, or indices of
            singular directions.
        seed: For ``random``.
        prompt: ``prompteol``, ``none``, or a template with exactly one ``{text}``.
        max_seq_length: The limit in tokens, prompt included. Only text is cut, from its end.
        dtype: The backbone's dtype; ``"auto"`` takes the stored one (float32 for a GGUF file).
        device: As in ``SentenceTransformer``.
        revision: Branch, tag or commit; for a hub id only.
        spectrum: The model's spectrum, if it was computed before.
        progress: Show a progress bar on stderr while W_U is read.

    Raises:
        EmbFilterError: One of its kinds, see :meth:`Unembedding.from_pretrained`.
        BandError: If ratio, k or band don't fit the model's width.
        TemplateError: If the prompt can't be used.
    """
    template = resolve_template(prompt)
    resolved = resolve_source(source, revision)
    with parsed_once():
        unembedding = Unembedding.from_source(resolved)
        width = unembedding.shape[1]
        # Checked before the backbone is loaded, which may take minutes.
        choose_indices(width, ratio, k, band, seed)
        if spectrum is not None and spectrum.width != width:
            raise MisuseError(f"the spectrum is of width {spectrum.width}, the model of {width}")
        # The backbone first: of a hub repository, W_U is then read from the local cache.
        transformer = load_transformer(resolved, template, max_seq_length, dtype)
    spectrum = spectrum or compute_spectrum(unembedding, progress)
    filter_module = FilterModule.from_spectrum(spectrum, ratio=ratio, k=k, band=band, seed=seed)
    model = SentenceTransformer(
        modules=[transformer, last_token_pooling(width), filter_module], device=device
    )
    return model.eval()


def load_transformer(
    source: Source, template: str, max_seq_length: int, dtype: torch.dtype | str
) -> Transformer:
    """The backbone with the prompt built into its tokenizer.

    Raises:
        CheckpointError: If transformers can't load it.
        TemplateError: If the prompt alone takes up ``max_seq_length``.
    """
    # Said outright: where it isn't, a terminal's user is asked whether to run a repository's code.
    common: dict[str, Any] = {"trust_remote_code": False}
    if source.revision:
        common["revision"] = source.revision
    if source.gguf_file:
        common["gguf_file"] = source.gguf_file
        dtype = torch.float32 if dtype == "auto" else dtype
    try:
        transformer = load_backbone(source.location, dtype, common)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(f"{source.name} can't be loaded: {error}") from error
    backbone, tokenizer = transformer.auto_model, transformer.tokenizer
    if tokenizer is None:
        raise CheckpointError(f"{source.name} has no tokenizer")
    if source.gguf_file and source.folder:
        forget_quantization(backbone)
        if adds_bos(source.folder / source.gguf_file) is False:
            # The one post-processor that adds nothing.
            tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    limit = getattr(backbone.config, "max_position_embeddings", None) or max_seq_length
    max_seq_length = min(max_seq_length, limit)
    set_text_only(transformer, bake_template(tokenizer, template, max_seq_length))
    transformer.max_seq_length = max_seq_length
    return transformer


def forget_quantization(backbone: Any) -> None:
    """A model read from GGUF is dequantized, but still marked as quantized and won't be saved."""
    backbone.hf_quantizer = None
    backbone.is_quantized = False
    if hasattr(backbone.config, "quantization_config"):
        del backbone.config.quantization_config


def load_or_compute_spectrum(source: str | Path, revision: str | None, path: Path) -> Spectrum:
    """The spectrum kept in a file, which is made if it isn't there.

    Raises:
        MisuseError: If the file is of another matrix than the source's.
    """
    unembedding = Unembedding.from_pretrained(source, revision)
    if not path.exists():
        spectrum = compute_spectrum(unembedding, progress=True)
        spectrum.save(path)
        return spectrum
    spectrum = Spectrum.load(path)
    if spectrum.provenance.get("sha256") != unembedding.sha256:
        raise MisuseError(f"{path} is the spectrum of another model than {source}")
    return spectrum


def load_model(
    name: str | Path, dimensions: int | None = None, device: str | None = None
) -> SentenceTransformer:
    """Load any sentence-transformers model for use.

    Raises:
        SourceNotFoundError: If it isn't there, or can't be loaded.
        BandError: If it has fewer than ``dimensions``.
    """
    try:
        model = SentenceTransformer(str(name), device=device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SourceNotFoundError(f"{name} can't be loaded: {error}") from error
    if dimensions is not None:
        kept_dimensions(embedding_dimension(model) or dimensions, k=dimensions)
        model.truncate_dim = dimensions
    return model
