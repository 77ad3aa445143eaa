"""What is inspected: a causal language model, or for comparison a trained embedding model."""

from collections.abc import Sequence
from dataclasses import dataclass

from sentence_transformers import SentenceTransformer

from st_embfilter.checkpoint.source import Source, resolve_source
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.errors import BandError, MisuseError
from st_embfilter.layout.names import PROVENANCE_FILE
from st_embfilter.pipeline.building import build_model, load_model
from st_embfilter.pipeline.filter_module import choose_indices
from st_embfilter.pipeline.prompts import DEFAULT_PROMPT, resolve_template
from st_embfilter.spectral.bands import BandName
from st_embfilter.spectral.spectrum import Spectrum


@dataclass(frozen=True)
class Subject:
    """A model to inspect, of which nothing but headers was read.

    Attributes:
        source: Where it is.
        unembedding: Its W_U; of an embedding model its word embeddings.
        kept: The directions that the filter keeps, ascending.
        prompt: The template of its embeddings; ``None`` for an embedding model, which is used as
            it is.
    """

    source: Source
    unembedding: Unembedding
    kept: list[int]
    prompt: str | None

    def load_embedder(self, spectrum: Spectrum, device: str | None) -> SentenceTransformer:
        """The model that gives the unfiltered embeddings.

        Args:
            spectrum: Of :attr:`unembedding`.
            device: As in ``SentenceTransformer``.

        Raises:
            EmbFilterError: One of its kinds, if it can't be loaded.
        """
        if self.prompt is None:
            return load_model(self.source.location, device=device)
        whole = build_model(
            self.source.name,
            prompt=self.prompt,
            revision=self.source.revision,
            spectrum=spectrum,
            device=device,
        )
        return SentenceTransformer(modules=list(whole)[:-1], device=device)


def find_subject(
    source: str,
    *,
    ratio: float | None,
    k: int | None,
    band: BandName | Sequence[int],
    prompt: str | None,
    revision: str | None,
) -> Subject:
    """Find the model and its W_U, and check the arguments before minutes of work.

    A folder with ``modules.json`` is an embedding model. The other arguments are those of
    :func:`st_embfilter.build_model`.

    Raises:
        MisuseError: If an argument doesn't fit the model, or the source is an artifact, of which
            the filter is part.
        EmbFilterError: One of its other kinds, see :meth:`Unembedding.from_pretrained`.
    """
    resolved = resolve_source(source, revision)
    folder = None if resolved.gguf_file else resolved.folder
    if folder and (folder / "modules.json").is_file():
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
        unembedding = Unembedding.from_source(resolved)
    width = unembedding.shape[1]
    kept = sorted(choose_indices(width, ratio, k, band, seed=0))
    if len(kept) == width:
        raise BandError(f"all {width} directions are kept: there is no filter to look at")
    return Subject(resolved, unembedding, kept, prompt)
