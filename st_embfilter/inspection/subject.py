"""What is inspected: a causal language model, or for comparison a trained embedding model."""

from dataclasses import dataclass

from sentence_transformers import SentenceTransformer

from st_embfilter.checkpoint.checkpoint import Checkpoint, find_checkpoint
from st_embfilter.checkpoint.source import Source
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.encoding.loading import load_model
from st_embfilter.errors import BandError, MisuseError
from st_embfilter.layout.names import MODULES_FILE, PROVENANCE_FILE
from st_embfilter.pipeline.choices import BuildChoices
from st_embfilter.pipeline.prompts import DEFAULT_PROMPT, Prompts, resolve_template
from st_embfilter.pipeline.unfiltered import load_for, unfiltered_pipeline
from st_embfilter.spectral.bands import AUTO, BandChoice


@dataclass(frozen=True)
class Subject:
    """A model to inspect, of which nothing but headers was read.

    Attributes:
        source: Where it is.
        checkpoint: The causal language model; ``None`` for an embedding model.
        unembedding: Its W_U; of an embedding model its word embeddings.
        choice: What the filter keeps. It fits the model's width.
        prompt: The template of its embeddings; ``None`` for an embedding model, which is used as
            it is.
    """

    source: Source
    checkpoint: Checkpoint | None
    unembedding: Unembedding
    choice: BandChoice
    prompt: str | None

    def load_embedder(self, device: str | None) -> SentenceTransformer:
        """The model that gives the unfiltered embeddings.

        Args:
            device: As in ``SentenceTransformer``.

        Raises:
            EmbFilterError: One of its kinds, if it can't be loaded.
        """
        if self.checkpoint is None or self.prompt is None:
            return load_model(self.source.location, device=device)
        choices = BuildChoices(BandChoice(), Prompts(self.prompt), device=device)
        return unfiltered_pipeline(load_for(self.checkpoint, choices), choices)


def find_subject(
    source: str,
    *,
    choice: BandChoice,
    prompt: str | None,
    revision: str | None,
) -> Subject:
    """Find the model and its W_U, and check the arguments before minutes of work.

    Args:
        source: What the user named. A folder with ``modules.json`` is an embedding model.
        choice: What the filter keeps.
        prompt: A prompt's name or template; ``None`` for the default.
        revision: For a hub id only.

    Raises:
        MisuseError: If an argument doesn't fit the model, or the source is an artifact, of which
            the filter is part; of its kinds, BandError.
        EmbFilterError: One of its other kinds, see :meth:`Unembedding.from_pretrained`.
    """
    found = find_checkpoint(source, revision)
    resolved, checkpoint = found.source, None
    folder = None if resolved.gguf_file else resolved.folder
    if folder and (folder / MODULES_FILE).is_file():
        if (folder / PROVENANCE_FILE).is_file():
            raise MisuseError(
                f"{source} is an artifact, with its filter: inspect the language model it is built "
                f"from"
            )
        if prompt is not None:
            raise MisuseError(f"{source} is an embedding model, used as it is: leave out --prompt")
        unembedding = Unembedding.from_word_embeddings(resolved)
    else:
        prompt = resolve_template(DEFAULT_PROMPT if prompt is None else prompt)
        checkpoint, unembedding = found, found.unembedding
    width = unembedding.shape[1]
    if choice.band == AUTO:
        choice.dimensions(width)
    elif len(choice.indices(width)) == width:
        raise BandError(f"all {width} directions are kept: there is no filter to look at")
    return Subject(resolved, checkpoint, unembedding, choice, prompt)
