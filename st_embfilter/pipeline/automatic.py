"""The band ``auto``: the texts that it is calibrated on, and the filter that they give."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.language_model import load_language_model
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.errors import MisuseError
from st_embfilter.pipeline.filter_module import FilterModule
from st_embfilter.pipeline.own_text import cut_passages, write_passages
from st_embfilter.spectral.bands import BandChoice
from st_embfilter.spectral.spectrum import Spectrum

# With fewer, the result was worse than the plain edge (docs/research/auto.md).
FEWEST_TEXTS = 200


class Calibration(NamedTuple):
    """Texts to calibrate on.

    Args:
        texts: Each once.
        own: Whether the language model wrote them.
    """

    texts: list[str]
    own: bool

    def facts(self) -> dict[str, object]:
        """What an artifact's manifest tells of them."""
        digest = hashlib.sha256("\n".join(self.texts).encode("utf-8", "surrogatepass"))
        return {"texts": len(self.texts), "own": self.own, "sha256": digest.hexdigest()}


def calibration_texts(
    checkpoint: Checkpoint,
    given: Sequence[str] | None,
    dtype: torch.dtype | str,
    device: str | None,
    progress: bool,
) -> Calibration:
    """The texts that were given, or else the language model's own.

    Raises:
        EmbFilterError: One of its kinds: the language model can't be loaded, or can't write.
        MisuseError: If there are too few.
    """
    if given is not None:
        texts = list(dict.fromkeys(text for text in given if text.strip()))
    else:
        model, tokenizer = load_language_model(checkpoint, dtype, device)
        texts = cut_passages(write_passages(model, tokenizer, progress=progress))
    if len(texts) < FEWEST_TEXTS:
        raise MisuseError(
            f"the band auto is calibrated on {FEWEST_TEXTS} different texts at least, and there "
            f"are {len(texts)}: give more, or use the band edge, which needs none"
        )
    return Calibration(texts, own=given is None)


def fit_filter(
    unfiltered: SentenceTransformer,
    spectrum: Spectrum,
    calibration: Calibration,
    choice: BandChoice,
    *,
    progress: bool,
) -> FilterModule:
    """The filter for a pipeline that ends in its pooling.

    Where the pipeline has prompts for queries and documents, each text is embedded with all.

    Raises:
        NonFiniteError: If an embedding is NaN or infinite.
    """
    others = [
        name
        for name, prompt in unfiltered.prompts.items()
        if prompt and name != unfiltered.default_prompt_name
    ]
    encoder = PrefixEncoder(unfiltered)
    sample = np.concatenate(
        [
            encoder.encode(calibration.texts, prompt_name=name, show_progress_bar=progress)
            for name in (None, *others)
        ]
    )
    return FilterModule.from_sample(
        spectrum, sample, ratio=choice.ratio, k=choice.k, calibration=calibration.facts()
    )
