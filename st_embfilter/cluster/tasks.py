"""What is done to each part of a corpus: its texts encoded, or its vectors filtered."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from st_embfilter._version import __version__
from st_embfilter.cluster.joined_table import JoinedTable
from st_embfilter.cluster.parts import Part, origin, rows_of_part
from st_embfilter.errors import DataError, MisuseError, NonFiniteError
from st_embfilter.row_blocks import non_finite_rows
from st_embfilter.vectors.parquet_file import ParquetTable
from st_embfilter.vectors.transform import check_width
from st_embfilter.vectors.vector_column import (
    METADATA_KEY,
    WRITE_BYTES,
    ArrowVectors,
    as_lists,
    choose_column,
    resized,
)
from st_embfilter.vectors.vector_filter import VectorFilter, normalized

if TYPE_CHECKING:
    import pyarrow as pa

    from st_embfilter.encoding.prefix_encoder import PrefixEncoder

DTYPES = ("auto", "float32", "bfloat16", "float16")
EMBEDDING = "embedding"


@dataclass(frozen=True)
class Encoding:
    """Texts get a column of embeddings beside them.

    Attributes:
        model: Its folder, or its name on the hub.
        identity: What tells this model from every other.
        column: The texts.
        dims: How many dimensions are kept; None is all.
        normalize: Scale every embedding to length 1.
        prompt_name: The model's prompt to use.
        batch_size: Texts a forward pass.
        device: Where the model is.
        dtype: What it computes in; ``auto`` is what it was saved in.
    """

    model: str
    identity: str
    column: str
    dims: int | None
    normalize: bool
    prompt_name: str | None
    batch_size: int
    device: str
    dtype: str
    verb = "Encoding"

    def facts(self) -> dict[str, Any]:
        """All that the output depends on, beside the corpus; JSON."""
        return {
            "version": __version__,
            "model": self.model,
            "model_digest": hashlib.sha256(self.identity.encode()).hexdigest(),
            "column": self.column,
            "dims": self.dims,
            "normalized": self.normalize,
            "prompt_name": self.prompt_name,
            "dtype": self.dtype,
        }

    def check(self, path: str, schema: "pa.Schema") -> None:
        """Raise :class:`MisuseError` if a file's columns aren't right."""
        import pyarrow as pa

        if schema.names.count(self.column) != 1:
            raise MisuseError(
                f"{path} has no column {self.column!r}, or several. Its columns are: "
                f"{', '.join(schema.names)}"
            )
        kind = schema.field(self.column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise MisuseError(f"the column {self.column} of {path} holds {kind}, not texts")
        if EMBEDDING in schema.names:
            raise MisuseError(f"{path} has a column {EMBEDDING!r} already: rename or drop it")

    @cached_property
    def encoder(self) -> "PrefixEncoder":
        """The model, loaded when a worker has its first part."""
        import torch

        from st_embfilter.encoding.loading import check_prompt_name, load_model
        from st_embfilter.encoding.packed_weights import pack_weights
        from st_embfilter.encoding.prefix_encoder import PrefixEncoder

        dtype = None if self.dtype == "auto" else getattr(torch, self.dtype)
        model = load_model(self.model, self.dims, self.device, dtype)
        check_prompt_name(model, self.prompt_name)
        pack_weights(model)
        return PrefixEncoder(model)

    @property
    def cut(self) -> int:
        """How many texts this worker has cut at the model's limit."""
        return self.encoder.cut

    def convert(self, table: ParquetTable | JoinedTable, part: Part) -> "pa.RecordBatchReader":
        """A part's rows, as they are written.

        Raises:
            MisuseError: If the columns aren't right.
            DataError: If a text is null, or has no token.
            SourceNotFoundError: If the model can't be loaded; as ``load_model``.
        """
        import pyarrow as pa

        from st_embfilter.encoding.checks import check_texts

        def where(row: int) -> str:
            path, number = origin(table, part, row)
            return f"row {number} (from 0) of {path}"

        self.check(part.source, table.schema)
        rows = pa.Table.from_batches(rows_of_part(table, part, table.rows), table.schema)
        texts = rows.column(self.column).to_pylist()
        if None in texts:
            raise DataError(
                f"{where(texts.index(None))} has no text, its {self.column} is null: leave such "
                f"rows out, or give them an empty text"
            )
        check_texts(self.encoder.model, texts, self.encoder.front(self.prompt_name), where)
        # Of no text there is no embedding, whose width is wanted.
        vectors = self.encoder.encode(
            texts or ["a text"],
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize,
            prompt_name=self.prompt_name,
        )[: len(texts)]
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = rows.append_column(EMBEDDING, values).combine_chunks()
        return rows.cast(_described(rows.schema, self.facts())).to_reader()


@dataclass(frozen=True)
class Filtering:
    """Raw embeddings become filtered ones.

    Attributes:
        filter: For vectors of their width.
        column: The vectors.
        normalize: Scale every filtered vector to length 1.
    """

    filter: VectorFilter
    column: str
    normalize: bool
    verb = "Filtering"
    cut = 0

    def facts(self) -> dict[str, Any]:
        """All that the output depends on, beside the corpus; JSON."""
        return {
            "version": __version__,
            **self.filter.provenance,
            "filter_digest": hashlib.sha256(self.filter.matrix.tobytes()).hexdigest(),
            "column": self.column,
            "dtype": "float32",
            "normalized": self.normalize,
        }

    def check(self, path: str, schema: "pa.Schema") -> None:
        """Raise :class:`MisuseError` if a file's columns aren't right."""
        choose_column(path, schema, self.column)

    def convert(self, table: ParquetTable | JoinedTable, part: Part) -> "pa.RecordBatchReader":
        """A part's rows, as they are written.

        Raises:
            MisuseError: If the columns aren't right.
            WidthError: If its vectors are of another width than the filter takes.
            NonFiniteError: If a vector holds NaN or infinity, or is null; while rows are read.
        """
        import pyarrow as pa

        vectors = ArrowVectors(part.source, table, self.column)
        check_width(part.source, vectors.width, self.filter)
        kind = resized(vectors.field.type, pa.float32(), self.filter.dimensions)
        position = table.schema.get_field_index(self.column)
        schema = table.schema.set(position, vectors.field.with_type(kind))
        schema = _described(schema, self.facts())

        def batches() -> "Iterator[pa.RecordBatch]":
            first = 0
            for batch in rows_of_part(table, part, max(1, WRITE_BYTES // (4 * vectors.width))):
                raw = vectors.vectors(batch.column(position), part.first + first)
                bad = non_finite_rows(raw)
                if len(bad):
                    path, row = origin(table, part, first + int(bad[0]))
                    raise NonFiniteError(
                        f"{path}: the vector in row {row} (from 0) is null, or holds NaN or "
                        f"infinity, as do {len(bad) - 1} more near it: leave such rows out"
                    )
                rows = self.filter.apply(raw)
                if self.normalize:
                    rows = normalized(rows)
                columns = batch.columns
                columns[position] = as_lists(rows.ravel(), kind, len(rows))
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
                first += len(rows)

        return pa.RecordBatchReader.from_batches(schema, batches())


def _described(schema: "pa.Schema", facts: Mapping[str, Any]) -> "pa.Schema":
    """A schema that says what made the column of vectors."""
    metadata = dict(schema.metadata or {})
    # It lists the columns and their widths, which are other ones now.
    metadata.pop(b"huggingface", None)
    metadata[METADATA_KEY.encode()] = json.dumps(facts).encode()
    return schema.with_metadata(metadata)
