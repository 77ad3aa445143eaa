"""From a language model to a SentenceTransformer that encodes plain text through the filter."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import Pooling, Transformer, set_text_only
from st_embfilter.checkpoint.backbone import load_transformer
from st_embfilter.checkpoint.causal_config import rope_switch
from st_embfilter.checkpoint.checkpoint import Checkpoint, find_checkpoint
from st_embfilter.checkpoint.gguf_file import parsed_once
from st_embfilter.checkpoint.source import Source
from st_embfilter.checkpoint.unembedding import Unembedding, compute_spectrum
from st_embfilter.errors import MisuseError
from st_embfilter.layout.exact_transformer import ExactTransformer
from st_embfilter.pipeline.automatic import calibration_texts, fit_filter
from st_embfilter.pipeline.filter_module import FilterModule
from st_embfilter.pipeline.prompt_tokenizer import bake_template, exact_tokenizer, room_for_text
from st_embfilter.pipeline.prompts import (
    DEFAULT_PROMPT,
    PortablePrompts,
    Prompts,
    resolve_prompts,
    split_for_portable,
)
from st_embfilter.spectral.bands import AUTO, Band, BandChoice
from st_embfilter.spectral.spectrum import Spectrum

logger = logging.getLogger(__name__)

# The reference's limit: of the whole prompt, or with Echo of the text.
DEFAULT_MAX_SEQ_LENGTH = 512
Format = Literal["portable", "exact"]
# The tokenizer classes that heed the reference's `add_bos_token=False` for Echo in its release of
# transformers (4.52.3). Others, as Llama 3's, go on to put BOS in front of every piece.
HEEDS_ADD_BOS_TOKEN = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")


@dataclass(frozen=True)
class BuildChoices:
    """What a user chooses of a model to build, beside the language model; see :func:`build_model`.

    Attributes:
        band: The kept directions.
        prompts: The templates.
        format: ``portable`` or ``exact``.
        max_seq_length: The limit in tokens.
        dtype: The backbone's.
        device: As in ``SentenceTransformer``.
        calibration: Texts for the band ``auto``, or None for those of this package.

    Raises:
        MisuseError: If they don't go together; of its kinds, TemplateError if the prompts can't be
            used in this format.
    """

    band: BandChoice
    prompts: Prompts
    format: Format = "portable"
    max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH
    dtype: torch.dtype | str = "auto"
    device: str | None = None
    calibration: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.format not in ("portable", "exact"):
            raise MisuseError(f"the format {self.format!r} is unknown: use portable or exact")
        if self.calibration is not None and self.band.band != AUTO:
            raise MisuseError(f"only the band auto is calibrated, not {self.band.band}")
        _ = self.carried  # Prompts that this format can't hold show before anything is read.

    @cached_property
    def carried(self) -> PortablePrompts | None:
        """The templates as the portable form carries them; None in the exact form."""
        return split_for_portable(self.prompts) if self.format == "portable" else None

    def check_band(self, width: int) -> None:
        """Raise :class:`BandError` unless the band fits a matrix of that width."""
        if self.band.band == AUTO:
            self.band.dimensions(width)
        else:
            self.band.indices(width)


def build_model(
    source: str | Path,
    *,
    ratio: float | None = None,
    k: int | None = None,
    band: Band = AUTO,
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
        band: ``auto`` (the spectrum weighted by a sample of embeddings, see
            :func:`~st_embfilter.spectral.calibration.automatic_filter`), ``edge`` (the paper's, of
            W_U alone), ``head``, ``tail``, ``mid``, ``random``, or indices of singular directions.
        seed: For ``random``.
        calibration: For ``auto``: a few hundred texts, at least 200, of the kinds that are to be
            embedded. By default those that come with this package, of many kinds.
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
            the text's first so many tokens. The default is less where a model with long rope turns
            longer texts by other factors.
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
    choices = BuildChoices(
        band=BandChoice(ratio, k, band, seed),
        prompts=resolve_prompts(prompt, query_prompt, document_prompt),
        format=format,
        max_seq_length=max_seq_length,
        dtype=dtype,
        device=device,
        calibration=calibration,
    )
    return build_pipeline(find_checkpoint(source, revision), choices, spectrum, progress)


def build_pipeline(
    checkpoint: Checkpoint,
    choices: BuildChoices,
    spectrum: Spectrum | None = None,
    progress: bool = False,
) -> SentenceTransformer:
    """As :func:`build_model`, of a language model that was found before."""
    prompts, carried = choices.prompts, choices.carried
    with parsed_once():
        width = checkpoint.unembedding.shape[1]
        # Checked before the backbone is loaded, which may take minutes.
        if spectrum is not None and spectrum.width != width:
            raise MisuseError(f"the spectrum is of width {spectrum.width}, the model of {width}")
        choices.check_band(width)
        if choices.band.band == AUTO:
            texts = calibration_texts(choices.calibration)
        # The backbone first: of a hub repository, W_U is then read from the local cache.
        transformer, tokenizer = load_transformer(
            checkpoint, Transformer if carried else ExactTransformer, choices.dtype
        )
        if checkpoint.source.gguf_file:
            _ = checkpoint.licence  # For saving: here the file is parsed already.
    positions = _usable_positions(transformer.auto_model.config, choices.max_seq_length)
    rows = len(transformer.auto_model.get_input_embeddings().weight)
    if isinstance(transformer, ExactTransformer):
        pooling_mode = "mean" if prompts.echo else "lasttoken"
        bare = bool(checkpoint.source.gguf_file) or (
            _tokenizer_class(checkpoint.source) in HEEDS_ADD_BOS_TOKEN
        )
        limit = min(choices.max_seq_length, positions or choices.max_seq_length)
        set_text_only(transformer, exact_tokenizer(tokenizer, prompts, limit, bare, rows))
        transformer.max_seq_length = _limit_exact(transformer, prompts, limit, positions)
    elif carried:
        # No stock module pools the second copy alone: this is nearest (docs/research/echo.md).
        pooling_mode = "weightedmean" if prompts.echo else "lasttoken"
        baked = bake_template(tokenizer, carried.template, choices.max_seq_length, positions, rows)
        set_text_only(transformer, baked)
        transformer.max_seq_length = baked.model_max_length
    spectrum = spectrum or compute_spectrum(checkpoint.unembedding, progress)
    model = SentenceTransformer(
        modules=[transformer, Pooling(width, pooling_mode=pooling_mode)],
        device=choices.device,
        prompts=carried.fronts if carried else prompts.named,
        default_prompt_name=carried.default if carried else None,
    ).eval()
    if choices.band.band == AUTO:
        filter_module = fit_filter(model, spectrum, texts, choices.band, progress=progress)
    else:
        filter_module = FilterModule.from_choice(spectrum, choices.band)
    filter_module.checkpoint = checkpoint
    model.append(filter_module.to(model.device))
    return model


def _usable_positions(config: Any, max_seq_length: int) -> int | None:
    """How many tokens a model is to take at most, if that is limited."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    switch = rope_switch(config)
    if switch is None or max_seq_length == DEFAULT_MAX_SEQ_LENGTH:
        return min(switch, positions or switch) if switch else positions
    if max_seq_length > switch:
        logger.warning(
            "Beyond %d tokens this model turns positions by other factors, all of a batch alike. "
            "With max_seq_length %d, a short text's embedding depends on its company",
            switch,
            max_seq_length,
        )
    return positions


def _tokenizer_class(source: Source) -> str:
    """The tokenizer's class as its checkpoint names it, without transformers' ``Fast``."""
    if not source.has("tokenizer_config.json"):
        return ""
    name = source.read_json("tokenizer_config.json").get("tokenizer_class")
    return str(name).removesuffix("Fast")


def _limit_exact(
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


def load_or_compute_spectrum(unembedding: Unembedding, path: Path) -> Spectrum:
    """The spectrum kept in a file, which is made if it isn't there.

    Raises:
        MisuseError: If the file is of another matrix.
    """
    if not path.exists():
        spectrum = compute_spectrum(unembedding, progress=True)
        spectrum.save(path)
        return spectrum
    spectrum = Spectrum.load(path)
    if spectrum.provenance.get("sha256") != unembedding.sha256:
        raise MisuseError(f"{path} is the spectrum of another model than {unembedding.source}")
    return spectrum
