"""The search benchmark runs, and what it says of its indexes holds."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import quantize_embeddings

from support.paths import ROOT

FOLDER = ROOT / "benchmarks" / "search"


def test_every_kind_of_index_on_a_few_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faiss = pytest.importorskip("faiss", reason="needs the extra vectors")
    pytest.importorskip("pytrec_eval", reason="needs the extra mteb")
    monkeypatch.syspath_prepend(FOLDER)
    import indexes
    import quality
    import report
    import scale

    import vectors

    random = np.random.default_rng(0)
    real = indexes.unit(random.standard_normal((400, 32), np.float32) + 1, 32)
    folder = tmp_path / "2000"
    folder.mkdir()
    vectors.draw_like(real, 0.1 * real, 2000, 20, folder)
    out = tmp_path / "scale.json"
    options = ["--work", tmp_path, "--vectors", 2000, "--ratios", "1,2", "--out", out]
    monkeypatch.setattr(sys, "argv", ["scale.py", "MODEL", "DATA", *map(str, options)])
    monkeypatch.setattr(scale, "SECONDS", 0.001)
    threads = faiss.omp_get_max_threads()
    scale.main()
    assert len(capsys.readouterr().out.splitlines()) == 12
    scale.main()  # all is there
    assert not capsys.readouterr().out
    faiss.omp_set_num_threads(threads)

    rows = json.loads(out.read_text())["rows"]
    for row in rows:
        size = report.stored_size(row["kind"], row["dimensions"], 2000)
        assert row["bytes_per_vector"] * 2000 == pytest.approx(size, rel=0.02, abs=200)
        if row["kind"] in ("flat", "hnsw"):
            assert row["recall"] >= 0.95
    (binary,) = (row for row in rows if (row["kind"], row["ratio"]) == ("binary", 1))
    (centred,) = (row for row in rows if (row["kind"], row["ratio"]) == ("binary-centred", 1))
    assert centred["recall"] > binary["recall"]

    # FAISS's bytes are those of sentence-transformers, but for how they are rounded.
    index = indexes.build_int8(real, real)
    codes = faiss.vector_to_array(index.codes).reshape(real.shape).astype(int)
    theirs = quantize_embeddings(real, precision="uint8", calibration_embeddings=real)
    assert np.abs(codes - theirs).max() <= 1

    # Each query is a document: nothing is better than to find it first.
    names = [f"d{i}" for i in range(len(real))]
    judgements = {name: {name: 1} for name in names[:5]}
    task = vectors.Retrieval(real, real[:5], names, names[:5], judgements)
    answers = quality.answers(task, real, 32)
    assert quality.ndcg(task, answers["flat"][1]).tolist() == [1.0] * 5
    assert quality.ndcg(task, answers["flat"][1][:, ::-1]).max() < 0.5
