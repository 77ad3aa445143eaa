"""Encode many texts into a ``.npy`` file, resumably."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.errors import MisuseError, OutputWriteError
from st_embfilter.files import check_absent
from st_embfilter.layout.names import PROVENANCE_FILE

# So much work a kill may cost.
CHUNK_BATCHES = 32


def encode_to_file(
    model: SentenceTransformer,
    texts: list[str],
    path: str | Path,
    *,
    job: str,
    batch_size: int = 32,
    normalize: bool = False,
    prompt_name: str | None = None,
) -> tuple[int, int]:
    """Write the texts' embeddings, one row a text, to a ``.npy`` file of float32.

    The file appears when it is whole. Until then the work lies in hidden files beside it, and the
    same call goes on where an earlier one was stopped.

    Args:
        model: Encodes the texts, through a :class:`PrefixEncoder`.
        texts: In the order of the rows.
        path: The output, which must not exist.
        job: Names the model and the settings: work that was left by another job is dropped.
        batch_size: A forward pass takes as many tokens as so many texts of 32 tokens (on a GPU, of
            256) have.
        normalize: Scale every embedding to length 1.
        prompt_name: The model's prompt to use, as ``"query"``.

    Returns:
        The array's shape.

    Raises:
        MisuseError: If the model has no prompt of that name.
        OutputExistsError: If ``path`` exists.
        OutputWriteError: If it can't be written.
    """
    path = Path(path).absolute()
    check_absent(path)
    partial = path.with_name(f".{path.name}.partial")
    state = path.with_name(f".{path.name}.progress")
    check_prompt_name(model, prompt_name)
    settings = [job, normalize, prompt_name, texts]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    encoder = PrefixEncoder(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        done = rows_done(state, partial, digest)
        if not done:
            # It would speak of rows that this job is about to write over.
            state.unlink(missing_ok=True)
        rows: np.memmap | None = np.load(partial, mmap_mode="r+") if done else None
        chunk = CHUNK_BATCHES * batch_size
        with tqdm(total=len(texts), initial=done, desc="Encoding", unit="text") as bar:
            for first in range(done, len(texts), chunk):
                embeddings = encoder.encode(
                    texts[first : first + chunk],
                    batch_size=batch_size,
                    normalize_embeddings=normalize,
                    prompt_name=prompt_name,
                )
                if rows is None:
                    shape = (len(texts), embeddings.shape[1])
                    rows = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
                rows[first : first + len(embeddings)] = embeddings
                rows.flush()
                write_state(state, digest, first + len(embeddings))
                bar.update(len(embeddings))
        assert rows is not None
        check_absent(path)
        os.rename(partial, path)
        state.unlink()
    except OSError as error:
        if isinstance(error, FileExistsError):
            raise
        raise OutputWriteError(f"{path} could not be written: {error}") from error
    return rows.shape[0], rows.shape[1]


def check_prompt_name(model: SentenceTransformer, prompt_name: str | None) -> None:
    """Raise :class:`MisuseError` if the model has no prompt of a name."""
    if prompt_name is not None and prompt_name not in model.prompts:
        names = ", ".join(model.prompts) or "none"
        raise MisuseError(f"the model has no prompt of the name {prompt_name!r} (it has: {names})")


def model_identity(model: str) -> str:
    """What tells a model from every other: an artifact's manifest, else its name."""
    manifest = Path(model, PROVENANCE_FILE)
    return manifest.read_text(encoding="utf-8") if manifest.is_file() else model


def rows_done(state: Path, partial: Path, digest: str) -> int:
    """How many rows an interrupted call of the same job has left, 0 if none."""
    try:
        left = json.loads(state.read_text())
    except (OSError, ValueError):
        return 0
    return int(left["rows"]) if left.get("job") == digest and partial.is_file() else 0


def write_state(state: Path, digest: str, rows: int) -> None:
    """Say how far the job is, in one step that a kill can't cut in two."""
    fresh = state.with_name(f"{state.name}.new")
    fresh.write_text(json.dumps({"job": digest, "rows": rows}))
    fresh.replace(state)
