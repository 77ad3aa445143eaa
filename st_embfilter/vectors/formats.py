"""The formats that vectors are stored in, told by a file's suffix."""

from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from st_embfilter.errors import MissingDependencyError, MisuseError
from st_embfilter.stores import Place
from st_embfilter.vectors.job import Filtered, StoredVectors
from st_embfilter.vectors.npy_file import NpyVectors

NPY, PARQUET, ARROW, LANCE, FAISS = ".npy", "Parquet", "Arrow IPC", "Lance", "FAISS"
FORMATS = {
    ".npy": NPY,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".arrows": ARROW,
    ".feather": ARROW,
    ".ipc": ARROW,
    ".lance": LANCE,
    ".faiss": FAISS,
    ".index": FAISS,
}
WITH_COLUMNS = (PARQUET, ARROW, LANCE)


class VectorFormat(StoredVectors, Protocol):
    """An input of some format, that knows how an output of its kind is written."""

    notes: list[str]
    # Vectors that the input counts and can't give, as they hold NaN.
    missing: int

    def write(self, out: Path, filtered: Filtered, dropped: bool, facts: dict[str, Any]) -> None:
        """Write the output to ``out``, a hidden neighbour of it."""


def format_of(place: Place) -> str:
    """The format that a name's suffix says.

    Raises:
        MisuseError: If it says none.
    """
    try:
        return FORMATS[PurePosixPath(place.name).suffix.lower()]
    except KeyError:
        raise MisuseError(
            f"{place}: vectors are read from and written to {', '.join(FORMATS)}; the suffix says "
            f"which"
        ) from None


def open_vectors(path: Path, kind: str, column: str | None) -> VectorFormat:
    """Open an input.

    Raises:
        MisuseError: If there is no such file.
        VectorFileError: If it can't be read.
        MissingDependencyError: If a package for its format isn't installed.
    """
    if not path.exists() or path.is_dir() != (kind == LANCE):
        raise MisuseError(f"{path}: there is no such {'folder' if kind == LANCE else 'file'}")
    try:
        match kind:
            case "FAISS":
                from st_embfilter.vectors.faiss_index import FaissVectors

                return FaissVectors(path)
            case ".npy":
                return NpyVectors(path)
        from st_embfilter.vectors.arrow_file import ArrowTable
        from st_embfilter.vectors.lance_dataset import LanceTable
        from st_embfilter.vectors.parquet_file import ParquetTable
        from st_embfilter.vectors.table import Table
        from st_embfilter.vectors.vector_column import ArrowVectors

        tables: dict[str, type[Table]]
        tables = {PARQUET: ParquetTable, ARROW: ArrowTable, LANCE: LanceTable}
        return ArrowVectors(path, tables[kind](path), column)
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{kind} needs more packages: pip install 'st-embfilter[vectors]'"
        ) from error
