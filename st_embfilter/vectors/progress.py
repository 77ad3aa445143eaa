"""How far the filtering of stored vectors is."""

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from st_embfilter.job_state import JobState


@dataclass
class Progress:
    """How far a job is.

    Attributes:
        ranging: Whether it is still looking for the ranges of int8.
        read: Rows of the input that are done.
        bad: How many of them hold NaN or infinity.
        low: The smallest value of every dimension so far.
        high: The largest.
    """

    ranging: bool
    read: int = 0
    bad: int = 0
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    @property
    def ranges(self) -> NDArray[np.float32] | None:
        """As sentence-transformers' ``quantize_embeddings`` takes them, ``(2, k)``."""
        return np.array([self.low, self.high], np.float32) if self.low else None

    def save(self, state: JobState) -> None:
        """Say so, for a run that goes on after a kill."""
        state.save(asdict(self))

    @classmethod
    def load(cls, state: JobState) -> "Progress | None":
        """What an earlier run of the same job has saved, or None."""
        left = state.left()
        try:
            return None if left is None else cls(**left)
        except TypeError:
            return None
