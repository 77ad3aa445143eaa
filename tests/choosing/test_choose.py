"""`st-embfilter choose`, on a tiny model."""

import json
import shlex
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from st_embfilter.choosing import run as choosing_run
from st_embfilter.encoding.embedder import Embedder
from st_embfilter.pipeline.automatic import SHIPPED_TEXTS
from support.command_line import Run, fails
from support.models import WIDTH, tiny_llama

PROMPTS = ("--prompt", "prompteol,none")


@pytest.mark.slow
def test_one_table_and_a_build_that_runs(run: Run, tiny: Path, tmp_path: Path) -> None:
    found = run("choose", tiny, *PROMPTS, "--prompt", 'A, [b], "{text}": "', "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    settings = [(t["prompt"], t["band"], t["dimensions"]) for t in told["trials"]]
    # Raw, the edge at three τ, auto at four; for each of the prompts.
    assert len(settings) == len(set(settings)) == 3 * 8
    assert {band for _, band, _ in settings} == {"raw", "edge", "auto"}
    assert {k for _, _, k in settings} == {WIDTH, WIDTH // 2, WIDTH // 4, WIDTH // 8}
    for trial in told["trials"]:
        assert set(trial["scores"]) == {"sentences", "topics", "search"}
        assert all(0 <= score <= 100 for score in trial["scores"].values())
        assert trial["total"] == pytest.approx(sum(trial["scores"].values()) / 3)
    chosen = told["trials"][told["chosen"]]
    assert chosen["total"] >= max(t["total"] for t in told["trials"]) - 5
    # The table says the same, to a person.
    for word in ("sentences", "topics", "search", "[b]", "τ = 8", f"{chosen['total']:.1f}"):
        assert word in found.stderr
    assert told["build"] in found.stderr
    command = shlex.split(told["build"].replace("DIR", str(tmp_path / "artifact")))
    assert command[0] == "st-embfilter"
    built = run(*command[1:], "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["dimensions"] == chosen["dimensions"]


@pytest.mark.slow
def test_texts_of_the_users_own(run: Run, tiny: Path, tmp_path: Path) -> None:
    own = tmp_path / "texts.txt"
    lines = SHIPPED_TEXTS.read_text(encoding="utf-8").splitlines()
    own.write_text("\n".join(lines[:300]), encoding="utf-8")
    found = run("choose", tiny, "--prompt", "none", "--texts", own, "--json")
    assert found.returncode == 0, found.stderr
    trials = json.loads(found.stdout)["trials"]
    assert all(0 < trial["scores"]["yours"] < 100 for trial in trials)
    assert len({trial["scores"]["yours"] for trial in trials}) > 1


@pytest.mark.slow
def test_goes_on_with_what_was_embedded(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, encoded, encode = tmp_path / "embeddings", list[str](), Embedder.encode
    whole = json.loads(run("choose", tiny, *PROMPTS, "--json").stdout)

    def stopped(embedder: Embedder, texts: list[str], *rest: None) -> object:
        if len(encoded) > 2000:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode(embedder, texts, *rest)

    monkeypatch.setattr(Embedder, "encode", stopped)
    interrupted = run("choose", tiny, *PROMPTS, "--embeddings", keep)
    assert interrupted.returncode != 0 and "Traceback" not in interrupted.stderr
    before = len(encoded)
    monkeypatch.setattr(Embedder, "encode", lambda e, t, *r: encoded.extend(t) or encode(e, t, *r))
    again = json.loads(run("choose", tiny, *PROMPTS, "--json", "--embeddings", keep).stdout)
    for trial, other in zip(whole["trials"], again["trials"], strict=True):
        assert trial["total"] == pytest.approx(other["total"], abs=0.5)
    total = len(encoded)
    assert before < total and len({*encoded}) < total
    run("choose", tiny, *PROMPTS, "--embeddings", keep)
    assert len(encoded) == total
    # Another model's are its own.
    other = tiny_llama(tmp_path / "other", tied=True)
    run("choose", other, "--prompt", "none", "--embeddings", keep)
    assert len(encoded) > total


def test_a_prompt_that_the_model_can_not_have_is_left_out(run: Run, tmp_path: Path) -> None:
    nameless = tiny_llama(tmp_path / "nameless", tokenizer=tokenizer_without_eos())
    result = run("choose", nameless, "--prompt", "echo")
    fails(result, 2, "none of the prompts can be used with this model")
    assert "echo is left out: Echo closes with an EOS token" in result.stderr


def test_what_can_not_be_used_is_found_before_the_model_is_loaded(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(choosing_run, "load_for")
    few = tmp_path / "few.txt"
    few.write_text("two words\n" * 200 + "one two three four five six\n" * 200)
    fails(run("choose", tiny, "--texts", few), 2, "of your texts 1 differ", "it takes 100")
    fails(run("choose", tiny, "--texts", tmp_path / "none.txt"), 2, "can't be read")
    fails(run("choose", tiny, "--prompt", "no such"), 2, "'no such' holds {text} 0 times")
    fails(run("choose", tiny, "--dtype", "int8"), 2, "--dtype int8")
    fails(run("choose", tmp_path / "nowhere"), 1, "no such folder")


def tokenizer_without_eos() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a text"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
