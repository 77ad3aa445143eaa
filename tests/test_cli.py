"""The command line, as a person or a script runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, BertConfig, BertModel

from st_embfilter import build_model
from support.command_line import Result, Run, fails
from support.models import WIDTH, tiny_llama


@pytest.mark.slow
def test_as_its_own_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "st_embfilter", "build", "nowhere/at/all", "--out", "x"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    fails(Result(result.returncode, result.stdout, result.stderr), 1, "no such folder")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["build"],
        ["choose"],
        ["encode"],
        ["verify"],
        ["publish"],
        ["export"],
        ["demo"],
        ["inspect"],
        ["transform"],
    ],
)
def test_help_teaches(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.returncode == 0 and "Usage" in result.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout.strip() == "0.1.0"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["portable", "exact"])
def test_prompts_of_queries_and_documents(run: Run, tiny: Path, tmp_path: Path, form: str) -> None:
    out, vectors = tmp_path / "artifact", tmp_path / "vectors.npy"
    prompts = ("--prompt", "none", "--query-prompt", "The question {text}")
    built = run("build", tiny, "--out", out, "--format", form, *prompts, "--band", "edge")
    assert built.returncode == 0, built.stderr
    assert ("trust_remote_code=True" in built.stderr) == (form == "exact")
    encoded = run("encode", out, "-", "--out", vectors, "--prompt-name", "query", text="cats\n")
    assert encoded.returncode == 0, encoded.stderr
    expected = build_model(tiny, band="edge", prompt="The question {text}", device="cpu").encode(
        ["cats"]
    )
    np.testing.assert_allclose(np.load(vectors), expected, atol=1e-4)
    assert run("verify", out).returncode == 0
    other = ("encode", out, "-", "--out", tmp_path / "other.npy", "--prompt-name", "title")
    fails(run(*other, text="cats\n"), 2, "no prompt of the name 'title'")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["portable", "exact"])
def test_echo(run: Run, tiny: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "artifact"
    built = run("build", tiny, "--out", out, "--prompt", "echo", "--format", form, "--band", "edge")
    assert built.returncode == 0, built.stderr
    assert run("verify", out).returncode == 0
    pooled = "weighted by position" if form == "portable" else "second copy"
    assert pooled in (out / "README.md").read_text()


@pytest.mark.slow
def test_build_encode_verify(run: Run, tiny: Path, tmp_path: Path) -> None:
    out, vectors = tmp_path / "artifact", tmp_path / "vectors.npy"
    built = run("build", tiny, "--out", out, "--ratio", 3, "--json", "--band", "edge")
    assert built.returncode == 0, built.stderr
    report = json.loads(built.stdout)
    assert report["dimensions"] == WIDTH // 3 and report["path"] == str(out)
    assert "Reading W_U" in built.stderr

    encoded = run("encode", out, "-", "--out", vectors, "--dims", 5, "--json", text="one\ntwo\n\n")
    assert encoded.returncode == 0, encoded.stderr
    assert json.loads(encoded.stdout)["shape"] == [3, 5]
    model = SentenceTransformer(str(out), device="cpu", truncate_dim=5)
    np.testing.assert_allclose(np.load(vectors), model.encode(["one", "two", ""]), atol=1e-5)

    verified = run("verify", out, "--json")
    assert verified.returncode == 0, verified.stderr
    assert all(check["ok"] for check in json.loads(verified.stdout))
    (out / "embfilter.json").unlink()
    failed = run("verify", out, "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)[0]["ok"] is False and "FAILED" in failed.stderr


@pytest.mark.slow
def test_spectrum_is_kept_and_used_again(run: Run, tiny: Path, tmp_path: Path) -> None:
    spectrum = tmp_path / "spectrum.safetensors"
    for name in ("one", "two"):
        result = run(
            "build", tiny, "--out", tmp_path / name, "--spectrum", spectrum, "--band", "edge"
        )
        assert result.returncode == 0, result.stderr
    assert "Reading W_U" not in result.stderr
    matrices = [
        (tmp_path / n / "2_Dense" / "model.safetensors").read_bytes() for n in ("one", "two")
    ]
    assert matrices[0] == matrices[1]
    other = tiny_llama(tmp_path / "other", initializer_range=0.2)
    result = run(
        "build", other, "--out", tmp_path / "three", "--spectrum", spectrum, "--band", "edge"
    )
    assert result.returncode == 2 and "another model" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ratio", "0"], ["filter ratio"]),
        (["--ratio", "-2"], ["filter ratio"]),
        (["--ratio", str(WIDTH + 1)], [f"width {WIDTH}"]),
        (["--dims", "0"], [f"from 1 to {WIDTH}"]),
        (["--dims", "9", "--ratio", "2"], ["not both"]),
        (["--band", "middle"], ["unknown band"]),
        (["--band", "1,x"], ["--band"]),
        (["--band", f"0,{WIDTH}"], ["index"]),
        (["--prompt", "no place"], ["{text}", "exactly once"]),
        (["--prompt", "{text} {text}!"], ["2 times"]),
        (["--dtype", "int3"], ["float32, bfloat16, float16"]),
        (["--max-seq-length", "3"], ["no room for text"]),
    ],
)
def test_misuse_is_exit_code_2(
    run: Run, tiny: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    fails(run("build", tiny, "--out", tmp_path / "out", *arguments), 2, *words)
    assert not any(tmp_path.iterdir())


def test_output_that_exists(run: Run, tiny: Path, tmp_path: Path) -> None:
    fails(run("build", tiny, "--out", tmp_path), 2, "already exists")
    fails(run("encode", tiny, "-", "--out", tmp_path, text="x"), 2, "already exists")
    assert not any(tmp_path.iterdir())


def test_sources_that_can_not_be_used(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fails(run("build", tmp_path / "nowhere", "--out", out), 1, "no such folder")
    fails(run("build", "org/unknown", "--out", out), 1, "org/unknown", "hub")

    bert = tmp_path / "bert"
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    ).save_pretrained(bert)
    fails(run("build", bert, "--out", out), 1, "no language-model head")

    broken = tiny_llama(tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.lm_head.weight.data[7, 3] = float("nan")
    model.save_pretrained(broken)
    fails(run("build", broken, "--out", out), 1, "NaN", "row 7")

    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    fails(run("build", broken, "--out", out), 1, "truncated")
    weights.write_bytes(b"garbage " * 100)
    fails(run("build", broken, "--out", out), 1, "corrupt")
    assert not out.exists()


def test_gguf_without_its_package(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    fails(run("build", tmp_path / "model.gguf", "--out", tmp_path / "o"), 1, "st-embfilter[gguf]")


def test_texts_that_can_not_be_read(run: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    fails(run("encode", tiny_artifact, tmp_path / "no.txt", "--out", out), 2, "no.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    fails(run("encode", tiny_artifact, tmp_path / "latin.txt", "--out", out), 2, "not UTF-8")
    fails(run("encode", tiny_artifact, "-", "--out", out, text=""), 2, "holds no text")
    fails(run("encode", tiny_artifact, "--out", out, "--dims", 25, text="x"), 2, "from 1 to 24")
    fails(run("encode", tmp_path / "no-model", "--out", out, text="x"), 1, "no-model")
    assert not out.exists()


def test_verify_without_a_folder(run: Run, tmp_path: Path) -> None:
    fails(run("verify", tmp_path / "missing"), 1, "no such folder")


def test_a_text_without_a_token_is_named_by_its_row(run: Run, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    assert run("build", tiny, "--out", out, "--prompt", "none", "--band", "edge").returncode == 0
    command = ("encode", out, "-", "--out", tmp_path / "x.npy")
    fails(run(*command, text="one\ntwo\n\nfour\n"), 1, "row 2 (from 0)", "has no token")
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.slow
def test_float16_that_overflows(run: Run, tmp_path: Path) -> None:
    """In every command that computes: one line, and nothing is written."""
    large = tiny_llama(tmp_path / "large")
    weights = load_file(large / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 3e4
    save_file(weights, large / "model.safetensors", {"format": "pt"})
    fails(
        run("build", large, "--out", tmp_path / "half", "--dtype", "float16", "--band", "edge"),
        1,
        "float16",
    )
    whole = tmp_path / "whole"
    assert run("build", large, "--out", whole, "--band", "edge").returncode == 0
    command = ("encode", whole, "-", "--out", tmp_path / "x.npy")
    fails(run(*command, "--dtype", "float16", text="a man\n"), 1, "'a man' holds NaN", "bfloat16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "whole"]
    done = run(*command, "--dtype", "bfloat16", text="a man\n")
    assert done.returncode == 0, done.stderr
