"""What a table on the disk is here, whatever its container: read and written in batches of rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from st_embfilter.errors import EmbFilterError, StoreError, VectorFileError
from st_embfilter.store_errors import meaning

if TYPE_CHECKING:
    import pyarrow as pa


class Table(Protocol):
    """A table on the disk.

    Attributes:
        schema: Its columns, with metadata.
        rows: How many it has.
        notes: What an output lacks of it.
    """

    schema: "pa.Schema"
    rows: int
    notes: list[str]

    def __init__(self, path: Path) -> None: ...

    def batches(self, columns: list[str], first: int, size: int) -> "Iterator[pa.RecordBatch]":
        """Some columns of the rows from ``first`` on, at most ``size`` rows at once."""

    def write(self, out: Path, batches: "pa.RecordBatchReader") -> None:
        """Write another table of the same kind."""


def without_first(batches: "Iterator[pa.RecordBatch]", count: int) -> "Iterator[pa.RecordBatch]":
    """The same rows but for the first."""
    for batch in batches:
        skipped = min(count, batch.num_rows)
        count -= skipped
        if batch.num_rows > skipped:
            yield batch.slice(skipped)


def is_list(kind: "pa.DataType") -> bool:
    """Whether a column's values are lists, of one length or of any."""
    import pyarrow as pa

    return bool(
        pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    )


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what the libraries raise at a broken file into one error.

    Raises:
        VectorFileError: If it can't be read.
        StoreError: If that is the object store's doing.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, EmbFilterError):
            raise
        if refusal := meaning(error):
            raise StoreError(f"{path}: {refusal}") from error
        # Lance adds where in its source it noticed.
        reason = str(error).partition(", /")[0]
        raise VectorFileError(f"{path} can't be read: {reason}") from error
