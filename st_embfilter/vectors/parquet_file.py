"""Tables in Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from st_embfilter.vectors.table import is_list, reading, without_first

if TYPE_CHECKING:
    import pyarrow as pa

READ_BYTES = 1 << 20
# An object store takes tens of milliseconds for a request of any size.
STORE_READ_BYTES = 1 << 23


class ParquetTable:
    """A Parquet file.

    Args:
        path: Where it is.
        opened: The file, if it is in an object store.
    """

    def __init__(self, path: Path | str, opened: "pa.NativeFile | None" = None) -> None:
        import pyarrow.parquet as pq

        self.path, self.notes = path, list[str]()
        size = STORE_READ_BYTES if opened else READ_BYTES
        with reading(path):
            # The defaults have whole row groups in memory, and some files have only one.
            self.file = pq.ParquetFile(opened or path, pre_buffer=False, buffer_size=size)
        self.schema = self.file.schema_arrow
        self.rows: int = self.file.metadata.num_rows

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
