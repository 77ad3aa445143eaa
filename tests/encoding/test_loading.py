"""One rule for a model in a folder and on the hub."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained
from st_embfilter.encoding.loading import load_model, model_identity
from support import hub_runs
from support.hub_server import Hub
from support.hub_store import Blob, Repository


def test_a_folders_identity_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = model_identity(str(tmp_path))
    assert model_identity(str(tmp_path)) == before
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert model_identity(str(tmp_path)) != before


@pytest.mark.slow
def test_a_dtype_is_of_the_weights_alone(tiny_artifact: Path) -> None:
    """As transformers loads a model in a dtype: the rotary frequencies are not rounded."""
    loaded = load_model(str(tiny_artifact), device="cpu", dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert loaded[0].auto_model.rotary_emb.inv_freq.dtype == torch.float32
    plain = SentenceTransformer(
        str(tiny_artifact), device="cpu", model_kwargs={"dtype": torch.bfloat16}
    )
    if plain[0].auto_model.rotary_emb.inv_freq.dtype != torch.float32:
        pytest.skip("this sentence-transformers rounds the rotary frequencies")
    texts = ["short", "a text of some more words " * 20]
    np.testing.assert_array_equal(loaded.encode(texts), plain.encode(texts))


@pytest.mark.slow
def test_code_is_compared_as_utf_8_in_any_locale(tiny: Path, tmp_path: Path) -> None:
    prompt = 'Fasse für mich zusammen: "{text}" in einem Wort:"'
    folder = save_pretrained(
        build_model(tiny, band="edge", prompt=prompt, format="exact", device="cpu"),
        tmp_path / "exact",
    )
    script = f"from st_embfilter.encoding.loading import load_model; load_model({str(folder)!r})"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_is_pinned_to_a_commit(hub: Hub, home: Path, tiny: Path, tmp_path: Path) -> None:
    """Where the hub's branch moves between two runs, no file has rows of two models."""
    folders = [
        save_pretrained(
            build_model(tiny, band="edge", prompt=prompt, device="cpu"), tmp_path / prompt[:4]
        )
        for prompt in ("first {text}:", "other {text}:")
    ]
    repository = hub.repositories["org/model"] = Repository.of_folder(folders[0])
    first = repository.refs["main"]
    lines = [f"text {number}" for number in range(3000)]
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(lines))
    command = ("encode", "org/model", texts, "--batch-size", "1", "--out", tmp_path / "out.npy")
    process = subprocess.Popen(
        [sys.executable, "-m", "st_embfilter", *map(str, command)],
        env=hub_runs.client_environment(hub, home),
        stderr=subprocess.DEVNULL,
    )
    state = tmp_path / ".out.npy.progress"
    while not state.exists() and process.poll() is None:
        pass
    process.kill()
    process.wait()
    assert state.exists() and not (tmp_path / "out.npy").exists()
    files = {path.relative_to(folders[1]): path for path in folders[1].rglob("*")}
    moved = {name.as_posix(): Blob(path) for name, path in files.items() if path.is_file()}
    repository.commit("main", moved)
    done = hub_runs.run(hub, home, *command)
    assert done.returncode == 0, done.stderr
    expected = build_model(tiny, band="edge", prompt="other {text}:", device="cpu").encode(lines)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-4)
    old = ("encode", f"org/model@{first}", texts, "--out", tmp_path / "old.npy")
    done = hub_runs.run(hub, home, *old)
    assert done.returncode == 0, done.stderr
    expected = build_model(tiny, band="edge", prompt="first {text}:", device="cpu").encode(lines)
    np.testing.assert_allclose(np.load(tmp_path / "old.npy"), expected, atol=1e-4)


@pytest.mark.slow
def test_the_exact_form_from_the_hub(hub: Hub, home: Path, tiny: Path, tmp_path: Path) -> None:
    folder = save_pretrained(
        build_model(tiny, band="edge", format="exact", device="cpu"), tmp_path / "exact"
    )
    hub.repositories["org/exact"] = Repository.of_folder(folder)
    texts, out = tmp_path / "texts.txt", tmp_path / "out.npy"
    texts.write_text("one\ntwo\n")
    done = hub_runs.run(hub, home, "encode", "org/exact", texts, "--out", out)
    assert done.returncode == 0, done.stderr
    expected = build_model(tiny, band="edge", format="exact", device="cpu").encode(["one", "two"])
    np.testing.assert_allclose(np.load(out), expected, atol=1e-4)
    code = folder / "exact_transformer.py"
    code.write_text(code.read_text(encoding="utf-8") + "# changed", encoding="utf-8")
    hub.repositories["org/other"] = Repository.of_folder(folder)
    done = hub_runs.run(hub, home, "encode", "org/other", texts, "--out", tmp_path / "no.npy")
    assert done.returncode == 1 and "code that is not this release" in done.stderr
