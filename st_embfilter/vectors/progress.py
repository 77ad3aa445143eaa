"""How far the filtering of stored vectors is: what a run that was stopped leaves for the next."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass
class Progress:
    """How far a job is.

    Attributes:
        job: The digest of all that the output depends on.
        ranging: Whether it is still looking for the ranges of int8.
        read: Rows of the input that are done.
        bad: How many of them hold NaN or infinity.
        low: The smallest value of every dimension so far.
        high: The largest.
    """

    job: str
    ranging: bool
    read: int = 0
    bad: int = 0
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    @property
    def ranges(self) -> NDArray[np.float32] | None:
        """As sentence-transformers' ``quantize_embeddings`` takes them, ``(2, k)``."""
        return np.array([self.low, self.high], np.float32) if self.low else None

    def save(self, path: Path) -> None:
        """Write it, in one step that a kill can't cut in two."""
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Progress | None":
        """Read what :meth:`save` wrote, or None if it is no such file."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
