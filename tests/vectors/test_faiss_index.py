"""`transform` of FAISS indexes: the same kind, metric, ids and parameters at k dimensions."""

from pathlib import Path

import numpy as np
import pytest

from st_embfilter import VectorFilter, transform_file
from st_embfilter.errors import MisuseError, NonFiniteError, OutputWriteError, VectorFileError
from st_embfilter.vectors import job as filtered_rows
from support.vector_data import WIDTH, file_size_limit, make_filter, matrix_of, raw_vectors

faiss = pytest.importorskip("faiss")
ROWS = 400
IDS = np.random.default_rng(3).permutation(ROWS).astype(np.int64) + 5000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered_rows, "BLOCK_ROWS", 100)
    monkeypatch.setattr(filtered_rows, "BLOCK_BYTES", 100)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_filter(tmp_path / "artifact")


def make_index(path: Path, kind: str, ids: bool, metric: int, raw: np.ndarray) -> None:
    index = faiss.index_factory(WIDTH, kind, metric)
    index.train(raw)
    if ids and not kind.startswith("IVF"):
        index = faiss.IndexIDMap2(index)
    if ids:
        index.add_with_ids(raw, IDS[: len(raw)])
    else:
        index.add(raw)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("kind", ["Flat", "HNSW12", "IVF4,Flat"])
def test_kinds_that_keep_vectors(
    kind: str, ids: bool, metric: int, artifact: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "raw.faiss", tmp_path / "out.faiss"
    make_index(source, kind, ids, metric, raw_vectors(ROWS))
    done = transform_file(source, artifact, out)
    assert done.notes == [] and done.rows == ROWS
    before, found = faiss.read_index(str(source)), faiss.read_index(str(out))
    assert type(found) is type(before)
    assert (found.d, found.ntotal, found.metric_type) == (16, ROWS, metric)
    if kind.startswith("IVF"):
        assert found.nlist == 4
        found.nprobe = 4
    inner = faiss.downcast_index(found.index) if isinstance(found, faiss.IndexIDMap) else found
    if kind == "HNSW12":
        assert inner.hnsw.nb_neighbors(1) == 12
    queries = VectorFilter.from_artifact(artifact).apply(raw_vectors(10, seed=9))
    exact = faiss.IndexFlat(16, metric)
    exact.add(raw_vectors(ROWS) @ matrix_of(artifact).T)
    distances, rows = exact.search(queries, 1)
    found_distances, names = found.search(queries, 1)
    np.testing.assert_array_equal(names, IDS[rows] if ids else rows)
    np.testing.assert_allclose(found_distances, distances, rtol=1e-4)


def test_settings_of_a_graph(artifact: Path, tmp_path: Path) -> None:
    index = faiss.IndexHNSWFlat(WIDTH, 8)
    index.hnsw.efConstruction, index.hnsw.efSearch = 77, 55
    index.add(raw_vectors(50))
    faiss.write_index(index, str(tmp_path / "raw.index"))
    transform_file(tmp_path / "raw.index", artifact, tmp_path / "out.index")
    found = faiss.read_index(str(tmp_path / "out.index"))
    assert (found.hnsw.efConstruction, found.hnsw.efSearch) == (77, 55)


@pytest.mark.parametrize("kind", ["SQ8", "IVF4,SQ8", "PQ6x4"])
def test_codes_become_a_flat_index(kind: str, artifact: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "raw.faiss", tmp_path / "out.faiss"
    make_index(source, kind, kind.startswith("IVF"), faiss.METRIC_L2, raw_vectors(ROWS))
    (note,) = transform_file(source, artifact, out).notes
    assert "keeps codes" in note and "flat index" in note
    found = faiss.read_index(str(out))
    if kind.startswith("IVF"):
        vectors = np.stack([found.reconstruct(int(name)) for name in IDS])
    else:
        vectors = found.reconstruct_n(0, ROWS)
    expected = raw_vectors(ROWS) @ matrix_of(artifact).T
    correlation = np.corrcoef(vectors.ravel(), expected.ravel())[0, 1]
    assert correlation > (0.999 if "SQ8" in kind else 0.7)


def test_ids_stay_with_their_vectors(artifact: Path, tmp_path: Path) -> None:
    raw = raw_vectors(ROWS)
    raw[[2, 250]] = np.nan
    source, out = tmp_path / "raw.faiss", tmp_path / "out.faiss"
    make_index(source, "Flat", True, faiss.METRIC_L2, raw)
    done = transform_file(source, artifact, out, nan="drop")
    assert done.dropped is not None and np.load(done.dropped).tolist() == [2, 250]
    found = faiss.read_index(str(out))
    kept = np.delete(np.arange(ROWS), [2, 250])
    assert faiss.vector_to_array(found.id_map).tolist() == IDS[kept].tolist()
    vectors = np.stack([found.reconstruct(int(name)) for name in IDS[kept]])
    np.testing.assert_allclose(vectors, raw[kept] @ matrix_of(artifact).T, atol=1e-5)


def test_what_is_refused(artifact: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "raw.faiss", tmp_path / "out.faiss"
    make_index(source, "LSH", False, faiss.METRIC_L2, raw_vectors(ROWS))
    with pytest.raises(VectorFileError, match="is an IndexLSH, which is not read"):
        transform_file(source, artifact, out)
    make_index(source, "Flat", False, faiss.METRIC_L2, raw_vectors(ROWS))
    with pytest.raises(MisuseError, match="FAISS index is float32"):
        transform_file(source, artifact, out, dtype="int8")
    source.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(VectorFileError, match="can't be read"):
        transform_file(source, artifact, out)
    assert not out.exists()


def test_a_full_disk(artifact: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "raw.faiss", tmp_path / "out.faiss"
    make_index(source, "HNSW32", False, faiss.METRIC_L2, raw_vectors(ROWS))
    with file_size_limit(40_000), pytest.raises(OutputWriteError, match="could not be written"):
        transform_file(source, artifact, out)
    assert not out.exists()
    assert transform_file(source, artifact, out).rows == ROWS


def inverted_file(rows: int, cells: int = 8) -> "faiss.IndexIVFFlat":
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(WIDTH), WIDTH, cells)
    index.train(raw_vectors(400))
    index.add(raw_vectors(rows))
    return index


def test_nan_that_an_inverted_file_counts_and_has_nowhere(artifact: Path, tmp_path: Path) -> None:
    index = inverted_file(20)
    odd = raw_vectors(2, seed=3)
    odd[0, 1] = np.nan
    index.add(odd)
    faiss.write_index(index, str(tmp_path / "in.faiss"))
    with pytest.raises(NonFiniteError, match="1 vectors with NaN that the index counts"):
        transform_file(tmp_path / "in.faiss", artifact, tmp_path / "out.faiss")
    done = transform_file(tmp_path / "in.faiss", artifact, tmp_path / "out.faiss", nan="drop")
    assert done.rows == 21 and "1 vectors with NaN" in done.notes[0]
    out = faiss.read_index(str(tmp_path / "out.faiss"))
    found = out.search(odd[1:] @ matrix_of(artifact).T, 1)[1]
    assert out.ntotal == 21 and found.tolist() == [[21]]


def test_fewer_vectors_than_cells(artifact: Path, tmp_path: Path) -> None:
    faiss.write_index(inverted_file(5), str(tmp_path / "in.faiss"))
    done = transform_file(tmp_path / "in.faiss", artifact, tmp_path / "out.faiss")
    assert done.rows == 5 and "it has 5 cells, not 8" in done.notes[0]
    assert faiss.read_index(str(tmp_path / "out.faiss")).nlist == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "in.faiss", "out.faiss"]


@pytest.mark.parametrize("kind", ["Array", "Hashtable"])
def test_a_direct_map_is_made_anew(artifact: Path, tmp_path: Path, kind: str) -> None:
    index = inverted_file(20)
    index.set_direct_map_type(getattr(faiss.DirectMap, kind))
    faiss.write_index(index, str(tmp_path / "in.faiss"))
    transform_file(tmp_path / "in.faiss", artifact, tmp_path / "out.faiss")
    out = faiss.read_index(str(tmp_path / "out.faiss"))
    assert out.direct_map.type == index.direct_map.type
    expected = raw_vectors(20)[7] @ matrix_of(artifact).T
    np.testing.assert_allclose(out.reconstruct(7), expected, atol=1e-5)
