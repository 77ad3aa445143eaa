"""Tables in Arrow IPC files, and in streams that were written to a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from st_embfilter.vectors.table import reading, without_first

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_MAGIC = b"ARROW1"


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
