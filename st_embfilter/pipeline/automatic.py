"""The band ``auto``: the texts that it is calibrated on, and the filter that they give."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.errors import MisuseError
from st_embfilter.pipeline.filter_module import FilterModule
from st_embfilter.spectral.bands import BandChoice
from st_embfilter.spectral.spectrum import Spectrum
from st_embfilter.texts import read_sample

# Written for this: sentences, questions, queries, titles, keyword lists, catalogue lines,
# paragraphs, messages, code, and 27 languages besides English.
SHIPPED_TEXTS = Path(__file__).with_name("calibration_texts.txt")
# Fewer leave too much to chance (docs/research/auto.md).
FEWEST_TEXTS = 200


class Calibration(NamedTuple):
    """Texts to calibrate on.

    Args:
        texts: Each once.
        shipped: Whether they are those that come with this package.
    """

    texts: list[str]
    shipped: bool

    def facts(self) -> dict[str, object]:
        """What an artifact's manifest tells of them."""
        digest = hashlib.sha256("\n".join(self.texts).encode("utf-8", "surrogatepass"))
        return {"texts": len(self.texts), "shipped": self.shipped, "sha256": digest.hexdigest()}


def calibration_texts(given: Sequence[str] | None) -> Calibration:
    """The texts that were given, or else those of this package.

    Raises:
        MisuseError: If there are too few.
    """
    texts = read_sample(SHIPPED_TEXTS) if given is None else given
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) < FEWEST_TEXTS:
        raise MisuseError(
            f"the band auto is calibrated on {FEWEST_TEXTS} different texts at least, and there "
            f"are {len(different)}: give more, or none, and it takes those of st-embfilter"
        )
    return Calibration(different, shipped=given is None)


def fit_filter(
    unfiltered: SentenceTransformer,
    spectrum: Spectrum,
    calibration: Calibration,
    choice: BandChoice,
    *,
    progress: bool,
) -> FilterModule:
    """The filter for a pipeline that ends in its pooling.

    Where the pipeline has prompts for queries and documents, each text is embedded with all. What
    differs between prompts doesn't tell texts apart: it counts as none of what is found.

    Raises:
        NonFiniteError: If an embedding is NaN or infinite.
    """
    others = [
        name
        for name, prompt in unfiltered.prompts.items()
        if prompt and name != unfiltered.default_prompt_name
    ]
    encoder = PrefixEncoder(unfiltered)
    samples = [
        encoder.encode(calibration.texts, prompt_name=name, show_progress_bar=progress)
        for name in (None, *others)
    ]
    means = np.stack([sample.mean(axis=0) for sample in samples])
    shifts = means.mean(axis=0) - means  # None, where there is one prompt.
    sample = np.concatenate([sample + shift for sample, shift in zip(samples, shifts, strict=True)])
    return FilterModule.from_sample(
        spectrum, sample, ratio=choice.ratio, k=choice.k, calibration=calibration.facts()
    )
