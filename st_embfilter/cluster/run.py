"""A corpus encoded, or its vectors filtered, by Ray Data: on all cores, GPUs or machines at hand.

Ray Data has the workers, gives them parts, and gives a part again whose worker was lost. That
nothing is there twice is :class:`~st_embfilter.cluster.output.Output`'s: a part's file is named
after what it is made of. Ray Data's own writer names files after the run, and so can't go on with
what an earlier run has left.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from st_embfilter import errors
from st_embfilter.errors import ClusterError, EmbFilterError, MissingDependencyError, MisuseError
from st_embfilter.stores import Place

try:
    import ray
    import ray.data

    from st_embfilter.cluster.output import Output
    from st_embfilter.cluster.parts import Part
    from st_embfilter.cluster.planning import cut
    from st_embfilter.cluster.tasks import DTYPES, Encoding, Filtering
    from st_embfilter.cluster.workers import Workers, connected, room
    from st_embfilter.encoding.checks import tell_cut
    from st_embfilter.encoding.loading import model_identity
    from st_embfilter.hub.download import pinned
    from st_embfilter.vectors.vector_filter import VectorFilter, as_filter
except ImportError as error:
    raise MissingDependencyError(
        "Ray needs more packages: pip install 'st-embfilter[ray]'"
    ) from error

__all__ = ["Workers", "encode_corpus", "transform_corpus"]

logger = logging.getLogger(__name__)

ENCODED_ROWS = 8192
TRANSFORMED_ROWS = 131_072
# Each is an object in Ray's store. Of more parts than these, some are given out together.
MOST_BLOCKS = 10_000
# A part that its worker doesn't survive, for want of memory say, isn't tried for ever.
TRIES = 4


def encode_corpus(
    source: str | Path,
    out: str | Path,
    model: str,
    *,
    column: str,
    dims: int | None = None,
    normalize: bool = False,
    prompt_name: str | None = None,
    batch_size: int = 32,
    dtype: str = "auto",
    part_rows: int = ENCODED_ROWS,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Give a corpus of texts a column of embeddings.

    The output is a folder of Parquet files with the corpus's columns and ``embedding``, float32.
    It is whole when ``.embfilter.json`` is in it. Until then the same call goes on where an earlier
    one was stopped, with whatever workers.

    Args:
        source: A Parquet file, or a folder of them, that all machines see: a path, or a URI as
            ``s3://bucket/texts``.
        out: The output, a path on a file system that all machines share, or a URI. Nothing but what
            an earlier such call has left may be in it.
        model: A folder that all machines see, or ``org/name`` or ``org/name@revision`` on the hub.
            It is pinned to its commit.
        column: The texts.
        dims: Keep the first so many dimensions: a larger τ.
        normalize: Scale every embedding to length 1.
        prompt_name: The model's prompt to use, as ``"document"``.
        batch_size: Texts of 16 tokens (GPU: 256) a forward pass; fewer longer ones.
        dtype: What the model computes in, as ``bfloat16``. Default: what it was saved in.
        part_rows: The most rows of a part: what a lost worker costs.
        workers: Who does it.

    Returns:
        The manifest that lies in the folder: the settings, the number of rows, and every part with
        the rows it is made of.

    Raises:
        MissingDependencyError: If Ray isn't installed; when this module is imported.
        MisuseError: If the column is missing or holds no texts, or an option doesn't fit.
        OutputExistsError: If something else is in ``out``, or it is whole.
        SourceNotFoundError: If the model can't be loaded.
        DataError: If a text is null, or there is none, or the corpus is an output that isn't whole.
        VectorFileError: If a file of the corpus can't be read, or has changed meanwhile.
        OutputWriteError: If the output can't be written. The same call goes on where it was.
        StoreError: If an object store refuses, or can't be reached. The same call goes on.
        ClusterError: If there is no such cluster, or a worker ends again and again.
    """
    if dtype not in DTYPES:
        raise MisuseError(f"dtype {dtype}: use one of {', '.join(DTYPES)}")
    workers = workers or Workers()
    model = pinned(model)  # Every worker loads it, now and when the run goes on another day.
    task = Encoding(
        model=model,
        identity=model_identity(model),
        column=column,
        dims=dims,
        normalize=normalize,
        prompt_name=prompt_name,
        batch_size=batch_size,
        device="cuda" if workers.gpus else "cpu",
        dtype=dtype,
    )
    return run(task, source, out, part_rows, workers)


def transform_corpus(
    source: str | Path,
    out: str | Path,
    vector_filter: VectorFilter | str | Path,
    *,
    column: str,
    dims: int | None = None,
    normalize: bool = False,
    part_rows: int = TRANSFORMED_ROWS,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Filter a corpus's column of raw embeddings; the other columns stay as they are.

    Output, workers and errors are those of :func:`encode_corpus`, and those below.

    Args:
        source: A Parquet file, or a folder of them, that all machines see: a path or a URI.
        out: The output, a path on a file system that all machines share, or a URI.
        vector_filter: The filter, or the artifact it is in: a folder, or ``org/name`` on the hub.
            Only this process reads it.
        column: The vectors.
        dims: Keep the first so many dimensions: a larger τ. Only of an artifact.
        normalize: Scale every filtered vector to length 1.
        part_rows: The most rows of a part: what a lost worker costs.
        workers: Who does it. On CPUs: a product of so few operations per byte is no work for GPUs.

    Returns:
        The manifest that lies in the folder.

    Raises:
        WidthError: If vectors are of another width than the filter takes.
        NonFiniteError: If a vector holds NaN or infinity, or is null.
    """
    task = Filtering(as_filter(vector_filter, dims), column, normalize)
    return run(task, source, out, part_rows, workers or Workers())


class Tries:
    """How often each part was begun. An actor's, as that outlives the workers."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    def begin(self, name: str) -> int:
        """The number of this try at a part, from 1 on."""
        self.counts[name] += 1
        return self.counts[name]


class PartWriter:
    """A worker: what Ray Data has one of in each process.

    Args:
        task: What is done to each part.
        output: Where it is written.
        tries: The actor that counts.
    """

    def __init__(self, task: Encoding | Filtering, output: Output, tries: Any) -> None:
        self.task, self.output, self.tries = task, output, tries
        self.told = 0

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write a part.

        An error is a row as well: Ray Data makes pages of an exception, in which ours is lost.
        """
        part: Part = row["part"]
        try:
            if ray.get(self.tries.begin.remote(part.name)) > TRIES:
                raise ClusterError(
                    f"{TRIES} workers ended at {part}, for want of memory perhaps: the same "
                    f"command goes on there, with fewer workers or a smaller batch size"
                )
            rows = self.output.write(part, self.task.convert)
        except EmbFilterError as error:
            return failure(type(error).__name__, str(error))
        except Exception as error:
            logger.exception("%s", part)
            message = (
                f"{type(error).__name__}: {error} (at {part}; Ray's logs show where). The parts "
                f"that are done are kept"
            )
            return failure("ClusterError", message)
        cut, self.told = self.task.cut - self.told, self.task.cut
        return {"rows": rows, "cut": cut, "error": "", "message": ""}


def failure(error: str, message: str) -> dict[str, Any]:
    """The row of a part that couldn't be written."""
    return {"rows": 0, "cut": 0, "error": error, "message": message}


def run(
    task: Encoding | Filtering,
    source: str | Path,
    out: str | Path,
    part_rows: int,
    workers: Workers,
) -> dict[str, Any]:
    """Do a task to a corpus; see :func:`encode_corpus`."""
    corpus, place = Place.of(source), Place.of(out)
    if corpus.holds(place):
        raise MisuseError(f"{place} lies in {corpus}, the input: choose another output")
    job = _digest(task.facts())
    output = Output(place, _digest([job, str(corpus), part_rows]))
    done = output.left()
    parts = cut(corpus, part_rows, task.check, job)
    facts = {"source": str(corpus), **task.facts()}
    output.begin(facts)
    left = [part for part in parts if part.name not in done]
    rows = too_long = 0
    ready = len(parts) - len(left)
    with tqdm(total=len(parts), initial=ready, desc=task.verb, unit="part") as bar:
        if left:
            with connected(workers.address) as own:
                for row in _written(left, task, output, workers, own):
                    rows += row["rows"]
                    too_long += row["cut"]
                    bar.set_postfix_str(f"{rows:,} rows", refresh=False)
                    bar.update()
    tell_cut(too_long, rows)
    return output.publish(parts, facts)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _written(
    parts: list[Part], task: Encoding | Filtering, output: Output, workers: Workers, own: bool
) -> Iterator[dict[str, Any]]:
    """Have parts written, and give what the worker says of each when it is.

    Raises:
        EmbFilterError: The first that a worker had.
        ClusterError: If a worker fails otherwise.
    """
    # Another's cluster may grow, if it is asked for more than it has.
    wanted = room(workers) if own or not workers.count else workers.count
    tries = ray.remote(num_cpus=0)(Tries).remote()
    dataset = ray.data.from_items(
        [{"part": part} for part in parts], override_num_blocks=min(len(parts), MOST_BLOCKS)
    ).map(
        PartWriter,  # type: ignore[arg-type]
        fn_constructor_args=(task, output, tries),
        # One part at a time: a worker that has several queued keeps them from idle ones.
        compute=ray.data.ActorPoolStrategy(
            size=min(len(parts), wanted, workers.count or wanted), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    try:
        for row in dataset.iter_rows():
            if row["error"]:
                raise getattr(errors, row["error"])(row["message"])
            yield row
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"a worker failed: {str(error).strip().splitlines()[-1]} The parts that are done are "
            f"kept: the same command goes on there"
        ) from error
