"""From a source to a SentenceTransformer that encodes plain text through the filter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import Pooling, Transformer, embedding_dimension, set_text_only
from st_embfilter.checkpoint.backbone import load_transformer
from st_embfilter.checkpoint.gguf_file import parsed_once
from st_embfilter.checkpoint.source import Source, resolve_source
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.errors import CheckpointError, MisuseError, SourceNotFoundError
from st_embfilter.layout.exact_transformer import ExactTransformer
from st_embfilter.layout.names import holds_only_our_code, names_other_code
from st_embfilter.pipeline.automatic import calibration_texts, fit_filter
from st_embfilter.pipeline.filter_module import (
    FilterModule,
    choose_dimensions,
    choose_indices,
    compute_spectrum,
)
from st_embfilter.pipeline.prompt_tokenizer import bake_template, exact_tokenizer, room_for_text
from st_embfilter.pipeline.prompts import (
    DEFAULT_PROMPT,
    Prompts,
    resolve_prompts,
    split_for_portable,
)
from st_embfilter.spectral.bands import AUTO, BandName, kept_dimensions
from st_embfilter.spectral.spectrum import Spectrum

# The reference's limit: of the whole prompt, or with Echo of the text.
DEFAULT_MAX_SEQ_LENGTH = 512
Format = Literal["portable", "exact"]
# The tokenizer classes that heed the reference's `add_bos_token=False` for Echo in its release of
# transformers (4.52.3). Others, as Llama 3's, go on to put BOS in front of every piece.
HEEDS_ADD_BOS_TOKEN = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")


def build_model(
    source: str | Path,
    *,
    ratio: float | None = None,
    k: int | None = None,
    band: BandName | Literal["auto"] | Sequence[int] = "edge",
    seed: int = 0,
    calibration: Sequence[str] | None = None,
    prompt: str = DEFAULT_PROMPT,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    format: Format = "portable",
    max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH,
    dtype: torch.dtype | str = "auto",
    device: str | None = None,
    revision: str | None = None,
    spectrum: Spectrum | None = None,
    progress: bool = False,
) -> SentenceTransformer:
    """Make a text-embedding model of a causal language model.

    The pipeline is Transformer → Pooling → :class:`FilterModule`. It encodes plain text, whether
    the tokenizer has a chat template or not.

    Args:
        source: A folder with ``config.json`` and safetensors files, a GGUF file, or a hub id.
        ratio: The filter ratio τ: ``k = d // τ`` dimensions are kept. 2 if neither this nor ``k``
            is given.
        k: The number of kept dimensions.
        band: ``edge`` (the paper's), ``auto`` (weighted by a sample of embeddings, see
            :func:`~st_embfilter.spectral.calibration.automatic_filter`), ``head``, ``tail``, ``mid``,
            ``random``, or indices of singular directions.
        seed: For ``random``.
        calibration: For ``auto``: a few hundred texts of any kind, at least 200. Where there are
            none, the language model writes its own, which takes minutes on a CPU.
        prompt: A name of ``prompts.PROMPTS``, or a template with one ``{text}`` (the last token is
            pooled) or two (as Echo).
        query_prompt: What ``encode_query`` uses instead, if not ``prompt``.
        document_prompt: What ``encode_document`` uses instead, if not ``prompt``.
        format: ``portable`` loads everywhere without remote code. ``exact`` tokenizes prompt and
            text as one string and cuts as the reference does, token by token; what is saved of it
            carries its code. With Echo, exact pools the mean over the second copy and EOS, and
            portable the mean over all tokens, weighted by their position.
        max_seq_length: The limit in tokens. Portable: prompt included, and only text is cut, from
            its end. Exact: prompt included, and the first and last half are kept. With Echo, both:
            the text's first so many tokens.
        dtype: The backbone's dtype; ``"auto"`` takes the stored one (float32 for a GGUF file).
        device: As in ``SentenceTransformer``.
        revision: Branch, tag or commit; for a hub id only.
        spectrum: The model's spectrum, if it was computed before.
        progress: Show a progress bar on stderr while W_U is read.

    Raises:
        EmbFilterError: One of its kinds, see :meth:`Unembedding.from_pretrained`.
        BandError: If ratio, k or band don't fit the model's width.
        TemplateError: If a prompt can't be used, or not in this format.
    """
    if format not in ("portable", "exact"):
        raise MisuseError(f"the format {format!r} is unknown: use portable or exact")
    prompts = resolve_prompts(prompt, query_prompt, document_prompt)
    carried = split_for_portable(prompts) if format == "portable" else None
    resolved = resolve_source(source, revision)
    with parsed_once():
        unembedding = Unembedding.from_source(resolved)
        width = unembedding.shape[1]
        # Checked before the backbone is loaded, which may take minutes.
        if spectrum is not None and spectrum.width != width:
            raise MisuseError(f"the spectrum is of width {spectrum.width}, the model of {width}")
        if band != AUTO:
            choose_indices(width, ratio, k, band, seed)
            if calibration is not None:
                raise MisuseError(f"only the band auto is calibrated, not {band}")
        else:
            choose_dimensions(width, ratio, k)
            # Before the backbone: of a large model there is not the room for two.
            texts = calibration_texts(resolved, calibration, dtype, device, progress)
        # The backbone first: of a hub repository, W_U is then read from the local cache.
        transformer, tokenizer = load_transformer(
            resolved, ExactTransformer if format == "exact" else Transformer, dtype
        )
    positions = getattr(transformer.auto_model.config, "max_position_embeddings", None)
    if isinstance(transformer, ExactTransformer):
        pooling_mode = "mean" if prompts.echo else "lasttoken"
        bare = bool(resolved.gguf_file) or tokenizer_class(resolved) in HEEDS_ADD_BOS_TOKEN
        limit = min(max_seq_length, positions or max_seq_length)
        set_text_only(transformer, exact_tokenizer(tokenizer, prompts, limit, bare))
        transformer.max_seq_length = limit_exact(transformer, prompts, limit, positions)
    elif carried:
        # No stock module pools the second copy alone. This is nearest to it (docs/choices.md).
        pooling_mode = "weightedmean" if prompts.echo else "lasttoken"
        baked = bake_template(tokenizer, carried.template, max_seq_length, positions)
        set_text_only(transformer, baked)
        transformer.max_seq_length = baked.model_max_length
    spectrum = spectrum or compute_spectrum(unembedding, progress)
    model = SentenceTransformer(
        modules=[transformer, Pooling(width, pooling_mode=pooling_mode)],
        device=device,
        prompts=carried.fronts if carried else prompts.named,
        default_prompt_name=carried.default if carried else None,
    ).eval()
    if band == AUTO:
        filter_module = fit_filter(model, spectrum, texts, ratio=ratio, k=k, progress=progress)
    else:
        filter_module = FilterModule.from_spectrum(spectrum, ratio=ratio, k=k, band=band, seed=seed)
    filter_module.source = resolved
    model.append(filter_module.to(model.device))
    return model


def tokenizer_class(source: Source) -> str:
    """The tokenizer's class as its checkpoint names it, without transformers' ``Fast``."""
    if not source.has("tokenizer_config.json"):
        return ""
    name = source.read_json("tokenizer_config.json").get("tokenizer_class")
    return str(name).removesuffix("Fast")


def limit_exact(
    transformer: ExactTransformer, prompts: Prompts, limit: int, positions: int | None
) -> int:
    """The limit of an exact pipeline: of the whole prompt, or with Echo of the text.

    Raises:
        TemplateError: If a prompt leaves no room for text.
    """
    added = max(
        len(transformer.render(template, "")[0])
        for template in (prompts.plain, *prompts.named.values())
    )
    room = room_for_text(added, prompts.echo, limit, positions)
    return room if prompts.echo else limit


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
    name: str | Path,
    dimensions: int | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> SentenceTransformer:
    """Load any sentence-transformers model for use.

    Args:
        name: A folder, or a model on the hub.
        dimensions: Keep the first so many.
        device: As in ``SentenceTransformer``.
        dtype: What the model computes in, if not in what it was saved in.

    Raises:
        SourceNotFoundError: If it isn't there, or can't be loaded.
        CheckpointError: If it needs code of its own that is not this package's.
        BandError: If it has fewer than ``dimensions``.
    """
    try:
        own_code = holds_only_our_code(Path(name))
        if not own_code and names_other_code(Path(name)):
            raise CheckpointError(
                f"{name} holds code that is not this release of st-embfilter's: it is not run. "
                f"Load it with SentenceTransformer and trust_remote_code=True if you trust it"
            )
        model = SentenceTransformer(str(name), device=device, trust_remote_code=own_code)
        model.to(dtype)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise SourceNotFoundError(f"{name} can't be loaded: {error}") from error
    if dimensions is not None:
        kept_dimensions(embedding_dimension(model) or dimensions, k=dimensions)
        model.truncate_dim = dimensions
    return model
