"""Vectors in a column of a table; the other columns stay as they are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import MisuseError, VectorFileError, WidthError
from st_embfilter.vectors.job import Filtered
from st_embfilter.vectors.table import Table, is_list

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = "st_embfilter"
EXTENSION_KEYS = (b"ARROW:extension:name", b"ARROW:extension:metadata")
# Of all columns together, as far as one can tell beforehand: a row group of a Parquet file.
WRITE_BYTES = 32_000_000


class ArrowVectors:
    """A column of vectors.

    Args:
        path: Where the table is.
        table: The table.
        column: The column's name. Not needed where only one holds lists of floats.

    Raises:
        MisuseError: If there is no such column, or none or several to choose from.
        VectorFileError: If it holds something else than vectors.
    """

    def __init__(self, path: Path | str, table: Table, column: str | None) -> None:
        self.path, self.table = path, table
        self.rows, self.missing = table.rows, 0
        self.column = choose_column(path, table.schema, column)
        given = table.schema.field(self.column)
        self.field = _plain_field(given)
        plain = self.field.equals(given, check_metadata=True)
        told = f"the column {self.column} was a tensor's, and is plain lists in the output"
        self.notes = table.notes if plain else [*table.notes, told]
        self.width = self._first_width()

    def _first_width(self) -> int:
        """How many numbers a vector has: the first, where the type doesn't say."""
        import pyarrow as pa

        if pa.types.is_fixed_size_list(self.field.type):
            return int(self.field.type.list_size)
        for batch in self.table.batches([self.column], 0, 1024):
            lists = getattr(batch.column(0), "storage", batch.column(0))
            lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            if lengths.any():
                return int(lengths[lengths > 0][0])
        raise VectorFileError(f"{self.path} holds no vectors in its column {self.column}")

    def blocks(self, first: int, size: int) -> Iterator[NDArray[Any]]:
        """The vectors from row ``first`` on, in blocks of exactly ``size`` rows but for the last.

        A null and an empty list count as NaN.
        """
        block: NDArray[Any] | None = None
        filled, row = 0, first
        for batch in self.table.batches([self.column], first, size):
            vectors = self.vectors(batch.column(0), row)
            row += len(vectors)
            while len(vectors):
                if block is None:
                    block, filled = np.empty((size, self.width), vectors.dtype), 0
                count = min(size - filled, len(vectors))
                block[filled : filled + count] = vectors[:count]
                vectors, filled = vectors[count:], filled + count
                if filled == size:
                    yield block
                    block = None
        if block is not None:
            yield block[:filled]

    def vectors(self, lists: "pa.Array", row: int) -> NDArray[Any]:
        """Lists as rows of floats; NaN where there is none, or an empty one.

        Raises:
            WidthError: If one is of another length than the first.
        """
        lists = getattr(lists, "storage", lists)
        missing = lists.is_null().to_numpy(zero_copy_only=False)
        if not hasattr(lists.type, "list_size"):
            lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            # A failed embedding, as many a pipeline writes it.
            missing = lengths == 0
            odd = np.flatnonzero(~missing & (lengths != self.width))
            if len(odd):
                raise WidthError(
                    f"{self.path}: the vector in row {row + odd[0]} has {lengths[odd[0]]} numbers, "
                    f"the first one {self.width}"
                )
        values: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
        if not missing.any():
            return values.reshape(-1, self.width)
        rows = np.full((len(lists), self.width), np.nan, values.dtype)
        rows[~missing] = values.reshape(-1, self.width)
        return rows

    def write(self, out: Path, filtered: Filtered, dropped: bool, facts: dict[str, Any]) -> None:
        """Write the table with filtered vectors, and say in its metadata which filter it was."""
        import pyarrow as pa

        rows = np.load(filtered.rows, mmap_mode="r")
        values = pa.from_numpy_dtype(rows.dtype)
        field = self.field.with_type(resized(self.field.type, values, rows.shape[1]))
        position = self.table.schema.get_field_index(self.column)
        metadata = dict(self.table.schema.metadata or {})
        metadata[METADATA_KEY.encode()] = json.dumps(facts).encode()
        schema = self.table.schema.set(position, field).with_metadata(metadata)
        left_out = filtered.bad if dropped else np.empty(0, np.int64)
        reader = pa.RecordBatchReader.from_batches(
            schema, self._assemble(filtered.rows, left_out, position, schema)
        )
        self.table.write(out, reader)

    def _assemble(
        self, rows: Path, left_out: NDArray[np.int64], position: int, schema: "pa.Schema"
    ) -> "Iterator[pa.RecordBatch]":
        """The other columns with the filtered vectors between them."""
        import pyarrow as pa

        others = [name for name in self.table.schema.names if name != self.column]
        array = np.load(rows, mmap_mode="r")
        dtype, width = array.dtype, array.shape[1]
        row_bytes = max(width * dtype.itemsize, _bytes_on_disk(Path(self.path)) // self.rows)
        size, row = max(1, WRITE_BYTES // row_bytes), 0
        with rows.open("rb") as file:
            # Not through the map: its pages would count as this process's memory.
            file.seek(array.offset)
            for batch in self.table.batches(others, 0, size):
                here = left_out[slice(*np.searchsorted(left_out, [row, row + batch.num_rows]))]
                count = batch.num_rows - len(here)
                if len(here) and others:
                    kept = np.ones(batch.num_rows, bool)
                    kept[here - row] = False
                    batch = batch.filter(pa.array(kept))
                row += len(here) + count
                if not count:
                    continue
                values = np.fromfile(file, dtype, count * width)
                columns = list(batch.columns)
                columns.insert(position, as_lists(values, schema.field(position).type, count))
                yield pa.RecordBatch.from_arrays(columns, schema=schema)


def choose_column(path: Path | str, schema: "pa.Schema", column: str | None) -> str:
    """The name of the column that holds vectors."""
    there = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    vectors = [field.name for field in schema if _is_vectors(_plain_field(field).type)]
    if column is None and len(vectors) == 1:
        return str(vectors[0])
    if column is None:
        count = f"{len(vectors)} columns" if vectors else "no column"
        which = f": choose one with --column ({', '.join(vectors)})" if vectors else ""
        raise MisuseError(f"{path} has {count} of lists of floats{which}. Its columns are: {there}")
    if schema.names.count(column) != 1:
        raise MisuseError(f"{path} has no column {column!r}, or several. Its columns are: {there}")
    if column not in vectors:
        raise MisuseError(
            f"the column {column} of {path} holds {schema.field(column).type}, not lists of "
            f"float16, float32 or float64"
        )
    return column


def _plain_field(field: "pa.Field") -> "pa.Field":
    """A field as what it stores.

    Arrow's and Ray's tensor types tell a shape, which is another one after the filter. Where a type
    isn't known here, only the field's metadata say it.
    """
    kind = getattr(field.type, "storage_type", field.type)
    metadata = {k: v for k, v in (field.metadata or {}).items() if k not in EXTENSION_KEYS}
    return field.with_type(kind).with_metadata(metadata or None)


def _is_vectors(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return is_list(kind) and bool(pa.types.is_floating(kind.value_type))


def resized(kind: "pa.DataType", values: "pa.DataType", width: int) -> "pa.DataType":
    """The same kind of list, of other numbers and another length."""
    import pyarrow as pa

    inner = kind.value_field.with_type(values)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, width)
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)


def as_lists(values: NDArray[Any], kind: "pa.DataType", count: int) -> "pa.Array":
    """An array of ``count`` lists."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values), type=kind)
    large = pa.types.is_large_list(kind)
    offsets = np.linspace(0, len(values), count + 1, dtype=np.int64 if large else np.int32)
    made = pa.LargeListArray if large else pa.ListArray
    return made.from_arrays(pa.array(offsets), pa.array(values), type=kind)


def _bytes_on_disk(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files)
