"""Small Parquet files as one table."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from st_embfilter.cluster.corpus_file import CorpusFile
from st_embfilter.errors import VectorFileError
from st_embfilter.row_blocks import in_order
from st_embfilter.vectors.parquet_file import ParquetTable
from st_embfilter.vectors.table import reading, without_first

if TYPE_CHECKING:
    import pyarrow as pa

# Files read or looked into at the same time: an object store takes its time to answer, not ours.
AT_ONCE = 16


class JoinedTable:
    """The rows of several files, one file's behind the other's, in memory.

    A column that a file lacks is null in its rows, and of types that differ it is the wider one:
    what a reader of the whole folder makes of them.

    Args:
        files: One or more.

    Raises:
        StoreError: If one is gone, or may not be read.
        VectorFileError: If one is another than it was, can't be read, or its columns are of types
            that don't go together with those before it.
    """

    def __init__(self, files: Sequence[CorpusFile]) -> None:
        import pyarrow as pa

        self.notes = list[str]()
        self.paths = [file.path for file in files]
        contents = in_order((partial(_read, file) for file in files), AT_ONCE, len(files))
        self.first_table, table = next(contents)
        tables, schema = [table], table.schema
        for path, (_, table) in zip(self.paths[1:], contents, strict=True):
            try:
                schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise VectorFileError(
                    f"{path} has other columns than {self.paths[0]}, and small files become one: "
                    f"{error}"
                ) from error
            tables.append(table)
        self.ends = list(accumulate(len(table) for table in tables))
        self.whole = pa.concat_tables(
            [schema.empty_table(), *tables], promote_options="permissive"
        ).combine_chunks()
        self.schema, self.rows = self.whole.schema, self.whole.num_rows

    def batches(self, columns: list[str], first: int, size: int) -> "Iterator[pa.RecordBatch]":
        """See :class:`Table`."""
        return without_first(iter(self.whole.select(columns).to_batches(size)), first)

    def write(self, out: Path, batches: "pa.RecordBatchReader") -> None:
        """See :class:`Table`."""
        self.first_table.write(out, batches)

    def origin(self, row: int) -> tuple[str, int]:
        """The file that a row is from, and its number there."""
        file = bisect_right(self.ends, row)
        return self.paths[file], row - (self.ends[file - 1] if file else 0)


def _read(file: CorpusFile) -> "tuple[ParquetTable, pa.Table]":
    table = ParquetTable(file.path, file.content())
    with reading(file.path):
        return table, table.file.read()
