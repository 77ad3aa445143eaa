"""Encode many texts into a ``.npy`` file, resumably."""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter.encoding.checks import check_texts, tell_cut
from st_embfilter.encoding.loading import check_prompt_name
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.encoding.processors import tell_crowded
from st_embfilter.files import alone, writing
from st_embfilter.job_state import KEPT_BESIDE, JobState
from st_embfilter.row_file import RowFile
from st_embfilter.stores import Place, work_folder

# So much work a kill may cost.
CHUNK_BATCHES = 32
DTYPE = np.dtype(np.float32)


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

    The file appears when it is whole. Until then the work lies in hidden files beside it, of an
    object in a store in :func:`work_folder`, and the same call goes on where an earlier one was
    stopped.

    Args:
        model: Encodes the texts, through a :class:`PrefixEncoder`.
        texts: In the order of the rows.
        path: The output, a path or a URI. It must not exist.
        job: Names the model and the settings: work that was left by another job is dropped.
        batch_size: A forward pass takes as many tokens as so many texts of 16 tokens (on a GPU, of
            256) have.
        normalize: Scale every embedding to length 1.
        prompt_name: The model's prompt to use, as ``"query"``.

    Returns:
        The array's shape.

    Raises:
        MisuseError: If the model has no prompt of that name, its limit leaves no room for text, or
            another run is writing the output.
        DataError: If a text has no token, nor has the prompt.
        NonFiniteError: If an embedding holds NaN or infinity.
        OutputExistsError: If ``path`` exists.
        OutputWriteError: If it can't be written. The same call goes on where it was.
        StoreError: If an object store doesn't take it. The same call goes on there.
    """
    place = Place.of(path)
    path = Path(place.path) if place.is_local else work_folder(place) / place.name
    check_prompt_name(model, prompt_name)
    partial = path.with_name(f".{path.name}.partial")
    settings = [job, normalize, prompt_name, texts]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    state = JobState(path.with_name(f".{path.name}.progress"), digest)
    encoder = PrefixEncoder(model)
    check_texts(model, texts, encoder.front(prompt_name))
    if model.device.type == "cpu":
        tell_crowded()
    with alone(path, partial), writing(path, KEPT_BESIDE):
        place.check_absent()
        left = state.left() if partial.is_file() else None
        if left is None or "cut" not in left:
            # It would speak of rows that this job is about to write over.
            state.remove()
            left = {"rows": 0, "cut": 0}
        done, encoder.cut = int(left["rows"]), int(left["cut"])
        with ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(total=len(texts), initial=done, desc="Encoding", unit="text")
            )
            rows: RowFile | None = None
            if done:
                rows = stack.enter_context(RowFile(partial, DTYPE, left["width"], done))
            chunk = CHUNK_BATCHES * batch_size
            for first in range(done, len(texts), chunk):
                embeddings = encoder.encode(
                    texts[first : first + chunk],
                    batch_size=batch_size,
                    normalize_embeddings=normalize,
                    prompt_name=prompt_name,
                )
                if rows is None:
                    width = embeddings.shape[1]
                    rows = stack.enter_context(RowFile(partial, DTYPE, width, 0))
                rows.append(embeddings)
                rows.sync()
                state.save(
                    {"rows": first + len(embeddings), "width": rows.width, "cut": encoder.cut}
                )
                bar.update(len(embeddings))
            assert rows is not None
            rows.finish(len(texts))
        place.take(partial)
        state.remove()
    if not place.is_local:
        path.parent.rmdir()
    tell_cut(encoder.cut, len(texts))
    return len(texts), rows.width
