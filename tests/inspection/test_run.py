"""``st-embfilter inspect``, as a person or a script runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel

from st_embfilter import build_model
from st_embfilter._compat import Dense, Pooling, Transformer
from st_embfilter.checkpoint.source import resolve_source
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.errors import NoUnembeddingError
from st_embfilter.inspection import run as inspection_run
from st_embfilter.inspection.subject import Subject
from st_embfilter.pipeline.automatic import SHIPPED_TEXTS
from support.command_line import Run, fails
from support.models import WIDTH, byte_level_tokenizer, tiny_llama


def load(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder as sentence-transformers saves it, its embeddings as wide as its words'."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = BertModel(
        BertConfig(**sizes, intermediate_size=32, vocab_size=411, initializer_range=0.3)
    )
    bert.save_pretrained(folder / "bert")
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = None
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(24)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


@pytest.mark.slow
def test_a_language_model(run: Run, tiny: Path, tmp_path: Path) -> None:
    result = run("inspect", tiny, "--out", tmp_path / "out", "--dims", 10, "--json")
    assert result.returncode == 0, result.stderr
    content = load(tmp_path / "out")
    assert json.loads(result.stdout) == {
        "path": str(tmp_path / "out"),
        "reading": content["reading"],
    }
    assert len(content["kept"]) == 10 and content["texts"] == 500
    assert content["distribution"] == "the model itself, with no context"
    for finding in content["reading"]:
        assert finding["verdict"] in result.stderr
    names = ("energy", "shift-by-band", "shift-by-direction", "spectrum")
    files = {*(f"{name}.png" for name in names), "report.html", "report.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files


@pytest.mark.slow
def test_the_band_auto(run: Run, tiny: Path, tmp_path: Path) -> None:
    """Its filter is the one that build makes."""
    texts = tmp_path / "texts.txt"
    texts.write_text("one dog\ntwo cats\nthree long days of rain\n")
    options = ("--band", "auto", "--ratio", 3, "--texts", texts)
    result = run("inspect", tiny, "--out", tmp_path / "out", *options)
    assert result.returncode == 0, result.stderr
    content = load(tmp_path / "out")
    built = build_model(tiny, ratio=3, device="cpu")
    assert content["band"] == "auto" and content["dimensions"] == WIDTH // 3
    assert content["weights"] == pytest.approx(built[2].provenance["weights"], rel=1e-4)
    assert len(content["kept"]) == WIDTH // 2
    assert min(content["weights"][i] for i in content["kept"]) >= max(
        weight for i, weight in enumerate(content["weights"]) if i not in content["kept"]
    )
    rows = normalize(built.encode(texts.read_text().splitlines(), convert_to_tensor=True), dim=1)
    cosines = (rows @ rows.T)[~torch.eye(3).bool()]
    assert content["mean_cosine"]["after"] == pytest.approx(float(cosines.mean()), abs=1e-4)
    assert "weighs each" in (tmp_path / "out" / "report.html").read_text()
    fails(
        run("inspect", tiny, "--out", tmp_path / "no", "--band", "auto", "--dims", 4000),
        2,
        "from 1 to 48",
    )


@pytest.mark.slow
def test_own_texts_and_a_table(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("st_embfilter.commands.inspect.MOST_TEXTS", 5)
    texts, table = tmp_path / "own.txt", tmp_path / "table.json"
    texts.write_text("\n".join(f"two dogs and {number} cats" for number in range(9)) + "\n\n")
    options = ("--band", "tail", "--prompt", "none", "--texts", texts)
    assert run("inspect", tiny, "--out", tmp_path / "one", *options).returncode == 0
    content = load(tmp_path / "one")
    assert content["texts"] == 5 and content["samples"][0]["text"] == "two dogs and 0 cats"
    assert content["prompt"] == "{text}" and content["kept"] == list(range(WIDTH // 2))
    assert [band["name"] for band in content["bands"]] == ["kept", "tail end"]
    tokens = byte_level_tokenizer()(texts.read_text().split("\n"), add_special_tokens=False)
    ids = [token for line in tokens["input_ids"] for token in line]
    assert content["distribution"] == (
        f"{len(ids)} tokens counted in own.txt, {len(set(ids))} different"
    )

    table.write_text(json.dumps({"s": 100, "Ġ": 1}))
    result = run("inspect", tiny, "--out", tmp_path / "two", *options, "--tokens", table)
    assert result.returncode == 0, result.stderr
    content = load(tmp_path / "two")
    assert content["distribution"] == "the table table.json"
    assert content["token_sets"][0]["examples"][0]["text"] == "s"


@pytest.mark.slow
def test_an_embedding_model(run: Run, trained: Path, tmp_path: Path) -> None:
    result = run("inspect", trained, "--out", tmp_path / "out", "--ratio", 3, "--json")
    assert result.returncode == 0, result.stderr
    content = load(tmp_path / "out")
    assert content["prompt"] is None and len(content["kept"]) == 8
    assert content["unembedding"]["tensor"] == "embeddings.word_embeddings.weight"
    assert (
        content["distribution"].split(" tokens ")[1].startswith(f"counted in {SHIPPED_TEXTS.name}")
    )
    assert "was trained to compare" in content["reading"][-1]["text"]
    # What is read is what the model gives, unchanged.
    texts = SHIPPED_TEXTS.read_text(encoding="utf-8").splitlines()
    embedding = SentenceTransformer(str(trained), device="cpu").encode(texts[0])
    unembedding = Unembedding.from_word_embeddings(resolve_source(trained))
    logits = torch.cat(list(unembedding.row_blocks())) @ torch.from_numpy(embedding)
    top = content["samples"][0]["by_logit"]["before"]
    assert [token["id"] for token in top] == logits.topk(10).indices.tolist()


def test_misuse(run: Run, tiny: Path, trained: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    def refused(*arguments: object, code: int = 2, words: str) -> None:
        fails(run("inspect", *arguments, "--out", tmp_path / "out"), code, words)
        assert not (tmp_path / "out").exists()

    refused(tiny, "--ratio", 1, words="no filter to look at")
    refused(tiny, "--ratio", 0.5, words="filter ratio")
    refused(tiny, "--ratio", 2, "--dims", 3, words="not both")
    refused(tiny, "--band", "middle", words="unknown band")
    refused(tiny, "--prompt", "no place", words="{text}")
    refused(tiny, "--revision", "main", words="for a hub id only")
    refused(trained, "--prompt", "none", words="leave out --prompt")
    refused(tiny_artifact, words="inspect the language model it is built from")
    refused(tmp_path / "nowhere", code=1, words="no such folder")
    fails(run("inspect", tiny, "--out", tmp_path), 2, "already exists")


def test_texts_and_tables_that_can_not_be_used(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All of it is found before the model is loaded.
    monkeypatch.delattr(Subject, "load_embedder")
    monkeypatch.delattr(inspection_run, "compute_spectrum")

    def refused(option: str, content: bytes, words: str) -> None:
        (tmp_path / "file").write_bytes(content)
        result = run("inspect", tiny, "--out", tmp_path / "out", option, tmp_path / "file")
        fails(result, 2, words)
        assert not (tmp_path / "out").exists()

    refused("--texts", b"", "holds no text")
    refused("--texts", b"one\none\n", "holds one text")
    refused("--texts", b"one\ncaf\xe9\n", "not UTF-8")
    # Beyond the texts that are embedded, but counted.
    refused("--texts", b"".join(b"%d\n" % n for n in range(5000)) + b"caf\xe9", "not UTF-8")
    refused("--tokens", b"[1, 2]", "2 counts, and the model 411 tokens")
    refused("--tokens", b'{"Zeppelin": 1}', "not in the model's vocabulary")
    refused("--tokens", b'{"a": -1}', "-1 is not a count")


def test_sources_that_can_not_be_used(run: Run, trained: Path, tmp_path: Path) -> None:
    bare = tiny_llama(tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    result = run("inspect", bare, "--out", tmp_path / "out")
    fails(result, 1, "has no tokenizer that transformers can load")
    fails(
        run("inspect", trained.parent / "bert", "--out", tmp_path / "out"), 1, "no language-model"
    )
    neither = tiny_llama(tmp_path / "neither")
    path = neither / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "bos_token": None, "eos_token": None}))
    fails(run("inspect", neither, "--out", tmp_path / "out"), 1, "neither BOS nor EOS", "neither")
    assert not (tmp_path / "out").exists()


def test_embeddings_of_another_width(run: Run, trained: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(trained), device="cpu")
    model.append(Dense(24, 7))
    model.save(str(tmp_path / "dense"))
    result = run("inspect", tmp_path / "dense", "--out", tmp_path / "out")
    fails(result, 2, "embeddings of 7 numbers", "have 24")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["encoder.layer.weight"], "holds no word embeddings"),
        (["a.wte.weight", "b.wte.weight"], "more than one matrix"),
    ],
)
def test_word_embeddings_that_are_not_there(tmp_path: Path, names: list[str], words: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({name: torch.ones(3, 2) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(NoUnembeddingError, match=words):
        Unembedding.from_word_embeddings(resolve_source(tmp_path))
