"""Tables in Parquet, Arrow IPC and Lance, read and written in batches of rows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from st_embfilter.errors import MissingDependencyError, VectorFileError

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_MAGIC = b"ARROW1"
READ_BYTES = 1 << 20
LANCE_READ_BYTES = 1 << 25


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


class ParquetTable:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path, self.notes = path, list[str]()
        with reading(path):
            # The defaults have whole row groups in memory, and some files have only one.
            self.file = pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES)
        self.schema, self.rows = self.file.schema_arrow, self.file.metadata.num_rows

    def batches(self, columns: list[str], first: int, size: int) -> "Iterator[pa.RecordBatch]":
        """See :class:`Table`."""
        groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        skipped = 0
        while skipped < len(groups) and first >= groups[skipped]:
            first -= groups[skipped]
            skipped += 1
        with reading(self.path):
            batches = self.file.iter_batches(
                size, row_groups=range(skipped, len(groups)), columns=columns
            )
            yield from without_first(batches, first)

    def write(self, out: Path, batches: "pa.RecordBatchReader") -> None:
        """See :class:`Table`. Every batch is a row group."""
        import pyarrow.parquet as pq

        codecs = set[str]()
        for group in range(min(1, self.file.num_row_groups)):
            chunks = self.file.metadata.row_group(group)
            codecs = {chunks.column(i).compression.lower() for i in range(chunks.num_columns)}
        codec = codecs.pop() if len(codecs) == 1 else "snappy"
        names = [field.name for field in batches.schema if not is_list(field.type)]
        compression = "none" if codec == "uncompressed" else codec
        with pq.ParquetWriter(
            out, batches.schema, compression=compression, use_dictionary=names
        ) as writer:
            for batch in batches:
                writer.write_batch(batch)


class ArrowTable:
    """An Arrow IPC file, or a stream in a file, as Hugging Face's datasets keeps them."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path, self.notes = path, list[str]()
        with reading(path):
            with path.open("rb") as file:
                self.is_stream = file.read(len(ARROW_MAGIC)) != ARROW_MAGIC
            if self.is_stream:
                with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                    self.schema = stream.schema
                    self.rows = sum(batch.num_rows for batch in stream)
            else:
                with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as opened:
                    self.schema = opened.schema
                    counts = range(opened.num_record_batches)
                    self.rows = sum(opened.get_batch(i).num_rows for i in counts)

    def batches(self, columns: list[str], first: int, size: int) -> "Iterator[pa.RecordBatch]":
        """See :class:`Table`. From a map, as a batch of the file can be as large as the file."""
        import pyarrow as pa

        with reading(self.path), pa.memory_map(str(self.path)) as file:
            if self.is_stream:
                whole = iter(pa.ipc.open_stream(file))
            else:
                opened = pa.ipc.open_file(file)
                whole = (opened.get_batch(i) for i in range(opened.num_record_batches))
            pieces = (
                batch.select(columns).slice(start, size)
                for batch in whole
                for start in range(0, batch.num_rows, size)
            )
            yield from without_first(pieces, first)

    def write(self, out: Path, batches: "pa.RecordBatchReader") -> None:
        """See :class:`Table`."""
        import pyarrow as pa

        make = pa.ipc.new_stream if self.is_stream else pa.ipc.new_file
        with pa.OSFile(str(out), "wb") as file, make(file, batches.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)


class LanceTable:
    """A Lance dataset, in its newest version."""

    def __init__(self, path: Path) -> None:
        # It warns of every dataset that it makes.
        os.environ.setdefault("LANCE_LOG", "error")
        try:
            import lance
        except ImportError as error:
            raise MissingDependencyError(
                "Lance needs one more package: pip install 'st-embfilter[vectors]'"
            ) from error
        self.path = path
        with reading(path):
            self.dataset = lance.dataset(path)
            self.schema, self.rows = self.dataset.schema, self.dataset.count_rows()
            indexed = self.dataset.has_index
        self.notes = ["its indexes are not in the output: make them anew"] if indexed else []

    def batches(self, columns: list[str], first: int, size: int) -> "Iterator[pa.RecordBatch]":
        """See :class:`Table`."""
        with reading(self.path):
            scanner = self.dataset.scanner(
                columns=columns,
                offset=first or None,
                batch_size=size,
                scan_in_order=True,
                # By default it reads gigabytes ahead.
                io_buffer_size=LANCE_READ_BYTES,
            )
            yield from scanner.to_batches()

    def write(self, out: Path, batches: "pa.RecordBatchReader") -> None:
        """See :class:`Table`."""
        import lance

        version: Any = self.dataset.data_storage_version
        lance.write_dataset(batches, out, data_storage_version=version)


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
def reading(path: Path) -> Iterator[None]:
    """Turn what the libraries raise at a broken file into one error."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, VectorFileError):
            raise
        # Lance adds where in its source it noticed.
        reason = str(error).partition(", /")[0]
        raise VectorFileError(f"{path} can't be read: {reason}") from error
