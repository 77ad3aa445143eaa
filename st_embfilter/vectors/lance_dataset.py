"""Tables in Lance datasets."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_embfilter.errors import MissingDependencyError
from st_embfilter.vectors.table import reading

if TYPE_CHECKING:
    import pyarrow as pa

LANCE_READ_BYTES = 1 << 25


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
