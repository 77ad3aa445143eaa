"""A causal language model that was found, with what was read of its files: each of it once."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from st_embfilter.checkpoint.causal_config import load_config
from st_embfilter.checkpoint.licence import Licence, read_licence
from st_embfilter.checkpoint.source import Source, resolve_source
from st_embfilter.checkpoint.unembedding import Unembedding


@dataclass(frozen=True)
class Checkpoint:
    """A language model's files, and what they say; each is read when it is first asked for.

    Attributes:
        source: Where it is.
    """

    source: Source

    @cached_property
    def config(self) -> Any:
        """Its configuration; None of a GGUF file.

        Raises:
            NoUnembeddingError: If the model has no language-model head.
            CheckpointError: If ``config.json`` can't be used.
        """
        return None if self.source.gguf_file else load_config(self.source)

    @cached_property
    def unembedding(self) -> Unembedding:
        """Its W_U.

        Raises:
            EmbFilterError: One of its kinds, see :meth:`Unembedding.from_pretrained`.
        """
        return Unembedding.from_source(self.source, self.config)

    @cached_property
    def licence(self) -> Licence:
        """Its licence, empty if it says nothing of it."""
        return read_licence(self.source)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process starts with: open files can't go along."""
        return {"source": self.source}


def find_checkpoint(source: str | Path, revision: str | None = None) -> Checkpoint:
    """Find what the user named. Args and errors are those of :func:`resolve_source`."""
    return Checkpoint(resolve_source(source, revision))
