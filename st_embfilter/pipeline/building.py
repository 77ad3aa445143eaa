"""From a language model to a SentenceTransformer that encodes plain text through the filter."""

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from st_embfilter.checkpoint.checkpoint import Checkpoint, find_checkpoint
from st_embfilter.checkpoint.gguf_file import parsed_once
from st_embfilter.checkpoint.unembedding import Unembedding, compute_spectrum
from st_embfilter.errors import MisuseError
from st_embfilter.pipeline.automatic import calibration_texts, fit_filter
from st_embfilter.pipeline.choices import DEFAULT_MAX_SEQ_LENGTH, BuildChoices, Format
from st_embfilter.pipeline.filter_module import FilterModule
from st_embfilter.pipeline.prompts import DEFAULT_PROMPT, resolve_prompts
from st_embfilter.pipeline.unfiltered import load_for, unfiltered_pipeline
from st_embfilter.spectral.bands import AUTO, Band, BandChoice
from st_embfilter.spectral.spectrum import Spectrum


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
    with parsed_once():
        width = checkpoint.unembedding.shape[1]
        # Checked before the backbone is loaded, which may take minutes.
        if spectrum is not None and spectrum.width != width:
            raise MisuseError(f"the spectrum is of width {spectrum.width}, the model of {width}")
        choices.check_band(width)
        if choices.band.band == AUTO:
            texts = calibration_texts(choices.calibration)
        # The backbone first: of a hub repository, W_U is then read from the local cache.
        backbone = load_for(checkpoint, choices)
        if checkpoint.source.gguf_file:
            _ = checkpoint.licence  # For saving: here the file is parsed already.
    model = unfiltered_pipeline(backbone, choices)
    spectrum = spectrum or compute_spectrum(checkpoint.unembedding, progress)
    if choices.band.band == AUTO:
        filter_module = fit_filter(model, spectrum, texts, choices.band, progress=progress)
    else:
        filter_module = FilterModule.from_choice(spectrum, choices.band)
    filter_module.checkpoint = checkpoint
    model.append(filter_module.to(model.device))
    return model


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
