"""Filter a file of stored vectors into another of the same format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from st_embfilter._version import __version__
from st_embfilter.errors import (
    EmbFilterError,
    MisuseError,
    NonFiniteError,
    OutputExistsError,
    OutputWriteError,
    VectorFileError,
    WidthError,
)
from st_embfilter.files import alone, atomic_output, identity, replace_file, sync, writing
from st_embfilter.job_state import KEPT_BESIDE
from st_embfilter.stores import Place
from st_embfilter.vectors.formats import (
    FAISS,
    FORMATS,
    LANCE,
    NPY,
    WITH_COLUMNS,
    VectorFormat,
    format_of,
    open_vectors,
)
from st_embfilter.vectors.job import (
    SHOWN_ROWS,
    Filtered,
    FilterJob,
    NanPolicy,
    Settings,
)
from st_embfilter.vectors.local_copies import LocalCopies
from st_embfilter.vectors.precision import INTEGER, PRECISIONS, Precision
from st_embfilter.vectors.vector_filter import VectorFilter, as_filter


@dataclass(frozen=True)
class Transformed:
    """What became of a file of vectors.

    Attributes:
        path: The output; of one in an object store, the URI.
        rows: How many it holds.
        dimensions: How many each vector has.
        precision: What they are stored in.
        non_finite: How many rows of the input hold NaN or infinity.
        first_non_finite: The numbers of the first of them.
        dropped: A ``.npy`` file of the numbers of the rows that were left out, if any were.
        ranges: A ``.npy`` file ``(2, k)`` of the smallest and the largest value of every dimension,
            for int8 and uint8.
        notes: What else there is to say.
    """

    path: Path | str
    rows: int
    dimensions: int
    precision: Precision
    non_finite: int
    first_non_finite: list[int]
    dropped: Path | str | None
    ranges: Path | str | None
    notes: list[str]


def transform_file(
    source: str | Path,
    vector_filter: VectorFilter | str | Path,
    out: str | Path,
    *,
    dims: int | None = None,
    dtype: Precision = "float32",
    normalize: bool = False,
    nan: NanPolicy = "fail",
    column: str | None = None,
) -> Transformed:
    """Filter the raw embeddings in a file into another file of the same format.

    The output appears when it is whole. Until then the work lies in hidden files beside it, and
    the same call goes on where an earlier one was stopped. What is in an object store is copied to
    :func:`work_folder` first, and the work lies there, if the output is in one.

    Args:
        source: A path or a URI of a ``.npy`` or Parquet file, an Arrow IPC file, a Lance dataset or
            a FAISS index; its suffix says which (:data:`FORMATS`).
        vector_filter: The filter, or the artifact it is in: a folder, or ``org/name`` on the hub.
        out: The output, which must not exist; its suffix says the same format.
        dims: Keep the first so many dimensions: a larger τ. Only of an artifact.
        dtype: What the output is stored in, as sentence-transformers names it, or float16.
        normalize: Scale every filtered vector to length 1.
        nan: What becomes of rows with NaN or infinity: ``fail``, ``drop`` them, or ``keep`` them as
            rows of NaN.
        column: The column of vectors, where there are several.

    Raises:
        MisuseError: If an option doesn't fit the input, or another run is writing the output; of
            its kinds, BandError if the filter can't give ``dims`` dimensions, WidthError if the
            vectors are of another width.
        SourceNotFoundError: If there is no such artifact.
        VectorFileError: If the input can't be read.
        NonFiniteError: If rows hold NaN or infinity, and ``nan`` is ``fail``.
        OutputExistsError: If ``out`` exists.
        OutputWriteError: If it can't be written. The same call goes on where it was.
        StoreError: If an object store refuses, or can't be reached. The same call goes on.
    """
    origin, place = Place.of(source), Place.of(out)
    settings = Settings(dtype, normalize, nan)
    _check_settings(settings)
    _refuse_folder(origin)
    kind = format_of(origin)
    if format_of(place) != kind:
        raise MisuseError(f"{origin} is {kind}, and the output is of the same format: name it so")
    if kind == LANCE and not (origin.is_local and place.is_local):
        raise MisuseError("a Lance dataset has to be on a disk here: copy it, it is a folder")
    if kind == FAISS and dtype != "float32":
        raise MisuseError(
            "a FAISS index is float32 here: other precisions are kinds of index, which FAISS makes "
            "from a .npy file"
        )
    if column is not None and kind not in WITH_COLUMNS:
        raise MisuseError(f"{origin} is {kind}, which has no columns: leave out --column")
    copies = LocalCopies(origin, place)
    vector_filter = as_filter(vector_filter, dims)
    with alone(copies.out, FilterJob.hidden(copies.out, "rows")):
        copies.begin()
        file = copies.fetch()
        with copies.named(file):
            vectors = open_vectors(file, kind, column)
            if vectors.missing:
                _refuse_missing(vectors, nan)
            if vectors.rows == 0:
                raise VectorFileError(f"{origin} is empty: it holds no vectors")
            check_width(str(origin), vectors.width, vector_filter)
            job = FilterJob(vectors, vector_filter, settings, copies.out, [identity(file), column])
            return _finish(job, vectors, kind, copies)


def _refuse_missing(vectors: VectorFormat, nan: NanPolicy) -> None:
    told = f"{vectors.missing:,} vectors with NaN that the index counts and has in no cell"
    if nan == "fail":
        raise NonFiniteError(f"{vectors.path}: {told}. --nan drop leaves such out")
    vectors.notes.append(f"{told} are not in the output: they can't be had")


def _finish(job: FilterJob, vectors: VectorFormat, kind: str, copies: LocalCopies) -> Transformed:
    """Run a job, and write what it gives in the output's format."""
    out, settings = job.out, job.settings
    ranges_file = out.with_name(f"{out.name}.ranges.npy")
    dropped_file = out.with_name(f"{out.name}.dropped.npy")
    if job.left() is None:
        copies.place.beside(ranges_file.name).check_absent()
        copies.place.beside(dropped_file.name).check_absent()
    beside = list[Path]()
    try:
        with writing(out, KEPT_BESIDE):
            filtered = job.run()
        rows = job.vectors.rows
        dropped = settings.nan == "drop" and len(filtered.bad) > 0
        ranges = filtered.ranges if kind == NPY else None
        with atomic_output(out, folder=kind == LANCE) as partial:
            vectors.write(partial, copies.kept(filtered), dropped, _facts_of(job, filtered))
            sync(partial)
            if ranges is not None:
                _save_array(ranges_file, ranges)
                beside.append(ranges_file)
            if dropped:
                _save_array(dropped_file, filtered.bad)
                beside.append(dropped_file)
    except (OutputWriteError, OutputExistsError):
        raise
    except EmbFilterError:
        job.clean_up()
        raise
    copies.put(beside)
    job.clean_up()
    copies.clear()
    return Transformed(
        path=copies.place.given,
        rows=rows - (len(filtered.bad) if dropped else 0),
        dimensions=job.filter.dimensions,
        precision=settings.precision,
        non_finite=len(filtered.bad),
        first_non_finite=filtered.bad[:SHOWN_ROWS].tolist(),
        dropped=copies.place.beside(dropped_file.name).given if dropped else None,
        ranges=copies.place.beside(ranges_file.name).given if ranges is not None else None,
        notes=vectors.notes,
    )


def _check_settings(settings: Settings) -> None:
    if settings.precision not in PRECISIONS:
        raise MisuseError(f"unknown dtype {settings.precision!r}: use {', '.join(PRECISIONS)}")
    if settings.nan not in get_args(NanPolicy):
        raise MisuseError(f"nan must be fail, keep or drop, not {settings.nan!r}")
    if settings.nan == "keep" and settings.precision in INTEGER:
        raise MisuseError(
            f"{settings.precision} has no NaN: rows with NaN can be dropped (--nan drop), not kept"
        )


def _refuse_folder(place: Place) -> None:
    """Raise :class:`MisuseError` for a folder of Parquet files; a Lance dataset is another kind."""
    path = Path(place.path)
    is_lance = FORMATS.get(path.suffix.lower()) == LANCE
    if place.is_local and path.is_dir() and not is_lance and any(path.rglob("*.parquet")):
        raise MisuseError(
            f"{path} is a folder of Parquet files, and this takes one: `st-embfilter ray "
            f"transform` takes the folder"
        )


def check_width(path: Path | str, width: int, vector_filter: VectorFilter) -> None:
    """Raise :class:`WidthError` unless vectors fit the filter."""
    if width == vector_filter.width:
        return
    done = ": they may be filtered already" if width == vector_filter.dimensions else ""
    raise WidthError(
        f"{path} holds vectors of {width} numbers, and the filter takes {vector_filter.width}{done}"
    )


def _facts_of(job: FilterJob, filtered: Filtered) -> dict[str, Any]:
    """Which filter it was and what else queries have to go through, for an output's metadata."""
    return {
        "version": __version__,
        **job.filter.provenance,
        "dtype": job.settings.precision,
        "normalized": job.settings.normalize,
        "ranges": None if filtered.ranges is None else filtered.ranges.tolist(),
    }


def _save_array(path: Path, array: NDArray[Any]) -> None:
    with replace_file(path) as fresh, fresh.open("wb") as file:
        np.save(file, array)
