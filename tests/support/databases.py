"""Vector databases that hold raw embeddings, for the scripts of examples/ that filter them.

Each has its rows, with their numbers and texts, in a table `docs`: raw vectors under `raw`, and,
when a script was there, filtered ones under `filtered`.
"""

from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class Row(NamedTuple):
    """A stored row; its vector may be missing."""

    number: int
    text: str
    vector: np.ndarray | None


def width_of(rows: list[Row]) -> int:
    """Of the vectors that aren't missing."""
    return next(len(row.vector) for row in rows if row.vector is not None)


class Database(Protocol):
    """What a test asks of every database.

    Attributes:
        batch: So many rows its script filters at once.
    """

    batch: int

    def arguments(
        self, query: str, table: str = "docs", old: str = "raw", new: str = "filtered"
    ) -> list[str]:
        """What a script's command line has behind the artifact."""

    def store(self, rows: list[Row]) -> None:
        """Make the table."""

    def replace(self, row: Row) -> None:
        """Give a row another raw vector."""

    def rows(self, name: str) -> list[Row]:
        """All rows with the vectors of that name; none where there is no such name."""


class Qdrant:
    """A named vector of a collection, in the embedded mode's folder."""

    batch = 64

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder / "qdrant")

    def arguments(
        self, query: str, table: str = "docs", old: str = "raw", new: str = "filtered"
    ) -> list[str]:
        return [self.folder, table, new, query, old]

    def store(self, rows: list[Row]) -> None:
        from qdrant_client.models import Distance, VectorParams

        with self._client() as client:
            vectors = {"raw": VectorParams(size=width_of(rows), distance=Distance.DOT)}
            client.create_collection("docs", vectors)
            client.upsert("docs", [self._point(row) for row in rows])

    def replace(self, row: Row) -> None:
        with self._client() as client:
            client.upsert("docs", [self._point(row)])

    def rows(self, name: str) -> list[Row]:
        with self._client() as client:
            collection = "docs" if name == "raw" else name
            if not client.collection_exists(collection):
                return []
            points, _ = client.scroll(collection, limit=10_000, with_vectors=True)
        vectors = [point.vector["raw"] if name == "raw" else point.vector for point in points]
        return [
            Row(point.id, point.payload["text"], np.array(vector, np.float32))
            for point, vector in zip(points, vectors, strict=True)
        ]

    def _point(self, row: Row) -> Any:
        from qdrant_client.models import PointStruct

        vector = {} if row.vector is None else {"raw": row.vector.tolist()}
        return PointStruct(id=row.number, vector=vector, payload={"text": row.text})

    def _client(self) -> AbstractContextManager[Any]:
        """The folder has one client at a time."""
        from qdrant_client import QdrantClient

        return closing(QdrantClient(path=self.folder))


class Postgres:
    """A column of the type vector, in a server's database of its own."""

    batch = 500

    def __init__(self, server: str) -> None:
        self.server = server
        with self._connection() as connection:
            connection.execute("DROP TABLE IF EXISTS docs")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    def arguments(
        self, query: str, table: str = "docs", old: str = "raw", new: str = "filtered"
    ) -> list[str]:
        return [self.server, table, "number", old, new, query]

    def store(self, rows: list[Row]) -> None:
        with self._connection() as connection:
            columns = f"number int PRIMARY KEY, text text, raw vector({width_of(rows)})"
            connection.execute(f"CREATE TABLE docs ({columns})")
            with connection.cursor().copy("COPY docs FROM STDIN") as copy:
                for number, text, vector in rows:
                    copy.write_row((number, text, None if vector is None else str(vector.tolist())))

    def replace(self, row: Row) -> None:
        assert row.vector is not None
        with self._connection() as connection:
            values = [str(row.vector.tolist()), row.number]
            connection.execute("UPDATE docs SET raw = %s WHERE number = %s", values)

    def rows(self, name: str) -> list[Row]:
        from psycopg.errors import UndefinedColumn

        with self._connection() as connection:
            statement = f"SELECT number, text, {name}::real[] FROM docs ORDER BY number"
            try:
                stored = connection.execute(statement).fetchall()
            except UndefinedColumn:
                return []
        filled = [row for row in stored if row[2] is not None]
        return [Row(number, text, np.array(vector, np.float32)) for number, text, vector in filled]

    def _connection(self) -> Any:
        import psycopg

        return psycopg.connect(self.server)


class Lance:
    """A column of lists of one size, in a LanceDB folder."""

    batch = 500

    def __init__(self, folder: Path) -> None:
        import lancedb

        self.folder = str(folder / "lance")
        self.database = lancedb.connect(self.folder)

    def arguments(
        self, query: str, table: str = "docs", old: str = "raw", new: str = "filtered"
    ) -> list[str]:
        return [self.folder, table, old, new, query]

    def store(self, rows: list[Row]) -> None:
        import lance
        import pyarrow as pa

        numbers, texts, vectors = zip(*rows, strict=True)
        columns = {
            "number": pa.array(numbers),
            "text": pa.array(texts),
            "raw": pa.array(vectors, pa.list_(pa.float32(), width_of(rows))),
        }
        # LanceDB itself stores no NaN.
        lance.write_dataset(pa.table(columns), f"{self.folder}/docs.lance")

    def replace(self, row: Row) -> None:
        assert row.vector is not None
        table = self.database.open_table("docs")
        table.update(f"number = {row.number}", {"raw": row.vector.tolist()})

    def rows(self, name: str) -> list[Row]:
        table = self.database.open_table("docs").to_arrow()
        if name not in table.column_names:
            return []
        return [
            Row(row["number"], row["text"], np.array(row[name], np.float32))
            for row in table.sort_by("number").to_pylist()
        ]
