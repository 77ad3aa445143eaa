"""`transform` of .npy files: every dtype and policy, resumed, and whole or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sentence_transformers import SentenceTransformer, quantize_embeddings

from st_embfilter import VectorFilter, transform_file
from st_embfilter.errors import (
    BandError,
    CheckpointError,
    MisuseError,
    NonFiniteError,
    SourceNotFoundError,
    VectorFileError,
    WidthError,
)
from st_embfilter.job_state import JobState
from st_embfilter.vectors import job as filtered_rows
from st_embfilter.vectors.precision import PRECISIONS, convert
from st_embfilter.vectors.progress import Progress
from support import hub_runs
from support.command_line import Run, fails
from support.hub_server import Hub
from support.hub_store import Repository
from support.vector_data import (
    KEPT,
    WIDTH,
    file_size_limit,
    make_filter,
    matrix_of,
    needs_todays_rounding,
    raw_vectors,
)

ROWS = 950


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered_rows, "BLOCK_ROWS", 100)
    monkeypatch.setattr(filtered_rows, "BLOCK_BYTES", 100)
    monkeypatch.setattr(filtered_rows, "CHECKPOINT_BYTES", 100)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_filter(tmp_path / "artifact")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.save(tmp_path / "raw.npy", raw_vectors(ROWS))
    return tmp_path / "raw.npy"


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_models_embeddings(run: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_artifact), device="cpu")
    texts = [f"text {number}" for number in range(5)]
    raw = SentenceTransformer(modules=list(model)[:-1], device="cpu")
    np.save(tmp_path / "raw.npy", raw.encode(texts))
    out = tmp_path / "deep" / "out.npy"
    done = run("transform", tmp_path / "raw.npy", "--filter", tiny_artifact, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(out), model.encode(texts), atol=1e-5)
    told = json.loads(done.stdout)
    assert told["rows"] == 5 and told["dimensions"] == 24 and told["path"] == str(out)
    assert left_behind(out.parent) == []


@pytest.mark.parametrize("stored", ["<f4", ">f4", "f2", "f8", "fortran"])
def test_rows_of_any_float(stored: str, artifact: Path, tmp_path: Path) -> None:
    raw = raw_vectors(ROWS)
    raw = np.asfortranarray(raw) if stored == "fortran" else raw.astype(stored)
    np.save(tmp_path / "raw.npy", raw)
    transform_file(tmp_path / "raw.npy", artifact, tmp_path / "out.npy", dims=5)
    expected = raw.astype(np.float32) @ matrix_of(artifact)[:5].T
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-5, atol=1e-5)


@needs_todays_rounding
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_are_sentence_transformers_own(
    precision: str, artifact: Path, source: Path, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain.npy", tmp_path / "out.npy"
    transform_file(source, artifact, plain, normalize=True)
    done = transform_file(source, artifact, out, dtype=precision, normalize=True)  # type: ignore[arg-type]
    filtered = np.load(plain)
    np.testing.assert_allclose(np.linalg.norm(filtered, axis=1), 1, atol=1e-6)
    if precision == "float16":
        expected = filtered.astype(np.float16)
    else:
        ranges = np.load(done.ranges) if done.ranges else None
        assert (done.ranges is not None) == (precision in ("int8", "uint8"))
        expected = quantize_embeddings(filtered, precision)  # type: ignore[arg-type]
        given = quantize_embeddings(filtered, precision, ranges=ranges)  # type: ignore[arg-type]
        np.testing.assert_array_equal(expected, given)
    found = np.load(out)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@needs_todays_rounding
@given(
    arrays(np.float32, (6, 11), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from(["int8", "uint8", "binary", "ubinary"]),
)
def test_quantization_to_the_bit(rows: np.ndarray, precision: str) -> None:
    ranges = np.stack([rows[:4].min(axis=0), rows[:4].max(axis=0)])
    found = convert(rows, precision, ranges)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, quantize_embeddings(rows, precision, ranges=ranges))  # type: ignore[arg-type]


class Killed(BaseException):
    """Nothing is tidied up after it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Have a job end when it has said so many times how far it is."""
    save = Progress.save

    def dying(progress: Progress, state: JobState) -> None:
        nonlocal saves
        if saves == 0:
            raise Killed
        saves -= 1
        save(progress, state)

    monkeypatch.setattr(Progress, "save", dying)


@pytest.mark.parametrize(
    ("settings", "saves"),
    [({}, 3), ({"nan": "drop", "dtype": "float16"}, 4), ({"nan": "drop", "dtype": "int8"}, 2)],
)
def test_goes_on_where_it_was_stopped(
    settings: dict[str, str],
    saves: int,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = raw_vectors(ROWS)
    if settings:
        raw[[3, 150, 333, 901]] = np.nan
    np.save(tmp_path / "raw.npy", raw)
    whole, out = tmp_path / "whole.npy", tmp_path / "out.npy"
    transform_file(tmp_path / "raw.npy", artifact, whole, **settings)  # type: ignore[arg-type]
    seen = []
    filter_block = filtered_rows.FilterJob.filter_block

    def watched(self: filtered_rows.FilterJob, block: np.ndarray, *rest: object) -> object:
        seen.append(len(block))
        return filter_block(self, block, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(filtered_rows.FilterJob, "filter_block", watched)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, saves)
        transform_file(tmp_path / "raw.npy", artifact, out, **settings)  # type: ignore[arg-type]
    assert not out.exists()
    # What was written after the last checkpoint, a kill may have left cut off.
    with (tmp_path / ".out.npy.rows").open("ab") as file:
        file.write(b"cut off")
    seen.clear()
    transform_file(tmp_path / "raw.npy", artifact, out, **settings)  # type: ignore[arg-type]
    passes = 2 if settings.get("dtype") == "int8" else 1
    assert 0 < sum(seen) < passes * ROWS
    assert out.read_bytes() == whole.read_bytes()
    assert left_behind(tmp_path) == []


def test_a_second_run_is_refused(
    artifact: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.npy"
    filter_block = filtered_rows.FilterJob.filter_block

    def twice(self: filtered_rows.FilterJob, *block: object) -> object:
        with pytest.raises(MisuseError, match="another run"):
            transform_file(source, artifact, out, normalize=True)
        return filter_block(self, *block)  # type: ignore[arg-type]

    monkeypatch.setattr(filtered_rows.FilterJob, "filter_block", twice)
    transform_file(source, artifact, out)
    expected = raw_vectors(ROWS) @ matrix_of(artifact).T
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("changed", ["input", "filter", "settings"])
def test_another_job_starts_anew(
    changed: str, artifact: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        transform_file(source, artifact, tmp_path / "out.npy")
    raw, options = raw_vectors(ROWS), {}
    if changed == "input":
        raw = raw_vectors(ROWS, seed=2)
        np.save(source, raw)
        os.utime(source, ns=(1, 1))
    elif changed == "filter":
        options = {"dims": 3}
    else:
        options = {"normalize": True}
    transform_file(source, artifact, tmp_path / "out.npy", **options)  # type: ignore[arg-type]
    expected = raw @ matrix_of(artifact)[: options.get("dims")].T
    if changed == "settings":
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_a_full_disk(run: Run, artifact: Path, source: Path, tmp_path: Path) -> None:
    command = ("transform", source, "--filter", artifact, "--out", tmp_path / "out.npy")
    with file_size_limit(30_000):
        fails(run(*command), 1, "out.npy could not be written", "the same command goes on")
    assert not (tmp_path / "out.npy").exists()
    assert run(*command).returncode == 0
    expected = raw_vectors(ROWS) @ matrix_of(artifact).T
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
    assert left_behind(tmp_path) == []


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    raw = raw_vectors(ROWS)
    raw[7, 3], raw[8], raw[901, 0] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "holed.npy", raw)
    return tmp_path / "holed.npy"


BAD = [7, 8, 901]


def test_nan_fails(run: Run, artifact: Path, holed: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "int8"):
        command = ("transform", holed, "--filter", artifact, "--out", tmp_path / "out.npy")
        failed = run(*command, "--dtype", dtype)
        fails(failed, 1, "3 of 950 rows hold NaN or infinity: 7, 8, 901", "--nan drop")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "holed.npy"]


def test_nan_is_kept(run: Run, artifact: Path, holed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    kept = run("transform", holed, "--filter", artifact, "--out", out, "--nan", "keep", "--json")
    assert json.loads(kept.stdout)["first_non_finite"] == BAD
    assert np.flatnonzero(np.isnan(np.load(out)).all(axis=1)).tolist() == BAD
    assert np.isfinite(np.delete(np.load(out), BAD, axis=0)).all()
    for dtype in ("int8", "ubinary"):
        with pytest.raises(MisuseError, match="has no NaN"):
            transform_file(holed, artifact, tmp_path / "x.npy", nan="keep", dtype=dtype)  # type: ignore[arg-type]


def test_nan_is_dropped(run: Run, artifact: Path, holed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    dropped = run("transform", holed, "--filter", artifact, "--out", out, "--nan", "drop")
    assert "3 rows" in dropped.stderr and "out.npy.dropped.npy" in dropped.stderr
    expected = np.delete(raw_vectors(ROWS), BAD, axis=0) @ matrix_of(artifact).T
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    assert np.load(tmp_path / "out.npy.dropped.npy").tolist() == BAD


def test_nothing_is_left_to_write(artifact: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "raw.npy", np.full((9, WIDTH), np.nan))
    with pytest.raises(NonFiniteError, match="all rows"):
        transform_file(tmp_path / "raw.npy", artifact, tmp_path / "out.npy", nan="drop")


def test_large_numbers(artifact: Path, tmp_path: Path) -> None:
    """Their squares are too large for float32, and they are not infinite."""
    np.save(tmp_path / "raw.npy", raw_vectors(20) * np.float32(1e25))
    done = transform_file(tmp_path / "raw.npy", artifact, tmp_path / "out.npy")
    assert done.non_finite == 0
    with pytest.raises(MisuseError, match="float16 ends at 65,504"):
        transform_file(tmp_path / "raw.npy", artifact, tmp_path / "half.npy", dtype="float16")
    assert not (tmp_path / "half.npy").exists() and left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((3, 7), np.float32), ["WidthError", "7 numbers", "takes 24"]),
        (np.zeros((3, KEPT), np.float32), ["WidthError", "filtered already"]),
        (np.zeros(WIDTH, np.float32), ["VectorFileError", "shape (24,)"]),
        (np.zeros((3, WIDTH), np.int8), ["VectorFileError", "holds int8"]),
        (np.zeros((0, WIDTH), np.float32), ["VectorFileError", "empty"]),
        (np.array([[{}] * WIDTH]), ["VectorFileError", "unpickled"]),
        (b"", ["VectorFileError", "empty"]),
        (b"not a numpy file, but long enough", ["VectorFileError", "not a .npy file"]),
    ],
)
def test_bad_files(
    content: np.ndarray | bytes, words: list[str], artifact: Path, tmp_path: Path
) -> None:
    path = tmp_path / "raw.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises((WidthError, VectorFileError)) as error:
        transform_file(path, artifact, tmp_path / "out.npy")
    said = f"{type(error.value).__name__} {error.value}"
    assert all(word in said for word in words), said


def test_truncated_files(artifact: Path, source: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    for size in (len(whole) - 1, 300, 60, 8):
        source.write_bytes(whole[:size])
        with pytest.raises(VectorFileError, match="can't be read"):
            transform_file(source, artifact, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none.npy", "--out", "x.npy"], 2, ["no such file"]),
        (["raw.npy", "--out", "raw.npy"], 2, ["already exists"]),
        (["raw.npy", "--out", "x.parquet"], 2, ["of the same format"]),
        (["raw.npy", "--out", "x.csv"], 2, ["x.csv", ".parquet"]),
        (["raw.npy", "--out", "x.npy", "--dims", "17"], 2, ["from 1 to 16"]),
        (["raw.npy", "--out", "x.npy", "--dims", "0"], 2, ["from 1 to 16"]),
        (["raw.npy", "--out", "x.npy", "--column", "a"], 2, ["no columns"]),
        (["raw.npy", "--out", "x.npy", "--dtype", "int4"], 2, []),
    ],
)
def test_misuse(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: list[str],
    artifact: Path,
    source: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("transform", *arguments, "--filter", artifact)
    if words:
        fails(result, code, *words)
    assert result.returncode == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "raw.npy"]


def test_filters_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such folder"):
        VectorFilter.from_artifact(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="not an artifact of st-embfilter"):
        VectorFilter.from_artifact(tmp_path / "empty")
    tail = make_filter(tmp_path / "tail", band="tail")
    assert VectorFilter.from_artifact(tail, KEPT).dimensions == KEPT
    with pytest.raises(BandError, match="tail band"):
        VectorFilter.from_artifact(tail, 3)
    broken = make_filter(tmp_path / "broken")
    (broken / "2_Dense" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="can't be read"):
        VectorFilter.from_artifact(broken)
    biased = make_filter(tmp_path / "biased")
    (biased / "2_Dense" / "config.json").write_text('{"activation_function": "x.Tanh", "bias": 1}')
    with pytest.raises(CheckpointError, match="not a plain matrix"):
        VectorFilter.from_artifact(biased)


@pytest.mark.parametrize("name", ["spark.parquet", "spark"])
def test_a_folder_of_parquet_files_is_for_ray(
    tiny_artifact: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "part-00000.snappy.parquet").touch()
    with pytest.raises(MisuseError, match="st-embfilter ray transform"):
        transform_file(tmp_path / name, tiny_artifact, tmp_path / "out.parquet")


def test_queries_on_the_fly(artifact: Path) -> None:
    vector_filter = VectorFilter.from_artifact(artifact, dims=6)
    assert (vector_filter.width, vector_filter.dimensions) == (WIDTH, 6)
    queries = raw_vectors(3).astype(np.float64)
    found = vector_filter.apply(queries)
    assert found.dtype == np.float32 and found.shape == (3, 6)
    np.testing.assert_allclose(found, queries @ matrix_of(artifact)[:6].T, atol=1e-5)
    np.testing.assert_allclose(vector_filter.apply(queries[1].tolist()), found[1], atol=1e-6)
    with pytest.raises(WidthError, match=r"takes vectors of 24 .* \(2, 3\)"):
        vector_filter.apply(np.zeros((2, 3)))


@pytest.mark.slow
def test_of_the_hub_only_the_filter_is_fetched(
    hub: Hub, home: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    hub.repositories["org/filter"] = Repository.of_folder(tiny_artifact)
    np.save(tmp_path / "raw.npy", raw_vectors(3, width=48))
    command = ("transform", tmp_path / "raw.npy", "--out", tmp_path / "out.npy", "--filter")
    done = hub_runs.run(hub, home, *command, "org/filter")
    assert done.returncode == 0, done.stderr
    fetched = [path.name for path in home.glob("hub/models--org--filter/snapshots/*/**/*.*")]
    assert sorted(fetched) == ["config.json", "embfilter.json", "model.safetensors"]


def test_tensors_of_any_dtype(artifact: Path) -> None:
    torch = pytest.importorskip("torch")
    vector_filter, raw = VectorFilter.from_artifact(artifact), torch.from_numpy(raw_vectors(3))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        found = vector_filter.apply(raw.to(dtype).requires_grad_())
        expected = vector_filter.apply(raw.to(dtype).float().numpy())
        np.testing.assert_array_equal(found, expected)
