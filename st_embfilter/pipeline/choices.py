"""What a user chooses of a model to build."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from st_embfilter.errors import MisuseError
from st_embfilter.pipeline.prompts import PortablePrompts, Prompts, split_for_portable
from st_embfilter.spectral.bands import AUTO, BandChoice

# The reference's limit: of the whole prompt, or with Echo of the text.
DEFAULT_MAX_SEQ_LENGTH = 512
Format = Literal["portable", "exact"]


@dataclass(frozen=True)
class BuildChoices:
    """What a user chooses beside the language model; see :func:`~st_embfilter.build_model`.

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
