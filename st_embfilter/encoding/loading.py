"""Load an embedding model for use, whole or without its filter."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from st_embfilter._compat import embedding_dimension
from st_embfilter.errors import CheckpointError, MisuseError, SourceNotFoundError
from st_embfilter.files import identity
from st_embfilter.hub.download import artifact_folder, refuse_part
from st_embfilter.layout.names import MODULES_FILE, PROVENANCE_FILE
from st_embfilter.layout.trust import holds_only_our_code, names_other_code
from st_embfilter.spectral.bands import kept_dimensions


def load_model(
    name: str | Path,
    dimensions: int | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> SentenceTransformer:
    """Load any sentence-transformers model for use.

    Args:
        name: A folder, or ``org/name`` or ``org/name@revision`` on the hub.
        dimensions: Keep the first so many.
        device: As in ``SentenceTransformer``.
        dtype: What the model computes in, if not in what it was saved in.

    Raises:
        SourceNotFoundError: If it isn't there, or can't be loaded.
        CheckpointError: If it needs code of its own that is not this package's.
        BandError: If it has fewer than ``dimensions``.
    """
    folder = artifact_folder(name)
    if not (folder / MODULES_FILE).is_file():
        refuse_part(name, MODULES_FILE)  # Without it, sentence-transformers takes a mean of tokens.
    try:
        own_code = holds_only_our_code(folder)
        if not own_code and names_other_code(folder):
            raise CheckpointError(
                f"{name} holds code that is not this release of st-embfilter's: it is not run. "
                f"Load it with SentenceTransformer and trust_remote_code=True if you trust it"
            )
        model = SentenceTransformer(str(folder), device=device, trust_remote_code=own_code)
        if dtype is not None:
            for weight in model.parameters():
                # Not `model.to`, which would round the rotary frequencies too: no weights.
                weight.data = weight.data.to(dtype)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise SourceNotFoundError(f"{name} can't be loaded: {error}") from error
    if dimensions is not None:
        kept_dimensions(embedding_dimension(model) or dimensions, k=dimensions)
        model.truncate_dim = dimensions
    return model


def without_filter(model: SentenceTransformer) -> SentenceTransformer:
    """The same pipeline without its last module: the raw embeddings of the language model.

    It shares the modules, and has the same prompts.
    """
    return SentenceTransformer(
        modules=list(model)[:-1],
        device=str(model.device),
        prompts=dict(model.prompts),  # type: ignore[arg-type]
        default_prompt_name=model.default_prompt_name,
    )


def check_prompt_name(model: SentenceTransformer, prompt_name: str | None) -> None:
    """Raise :class:`MisuseError` if the model has no prompt of a name."""
    if prompt_name is not None and prompt_name not in model.prompts:
        names = ", ".join(model.prompts) or "none"
        raise MisuseError(f"the model has no prompt of the name {prompt_name!r} (it has: {names})")


def model_identity(model: str) -> str:
    """What tells a model from every other, and from what it was before.

    Args:
        model: Its name, of :func:`~st_embfilter.hub.download.pinned`.

    Returns:
        An artifact's manifest; of another folder, its files' sizes and times; on the hub, the name
        with its commit.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    if (folder / PROVENANCE_FILE).is_file():
        return (folder / PROVENANCE_FILE).read_text(encoding="utf-8")
    return f"{model} {identity(folder)}"
