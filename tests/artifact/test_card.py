"""The model card: valid front matter, true figures, snippets that fit the form; recipes."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained, verify
from st_embfilter.artifact.card import CardFacts
from st_embfilter.artifact.recipes import read_recipe
from st_embfilter.checkpoint.licence import Licence, read_licence
from st_embfilter.checkpoint.source import Source
from st_embfilter.errors import RecipeError, SourceNotFoundError
from support.command_line import Run, fails
from support.hub_card import check_card
from support.paths import ROOT

pytestmark = pytest.mark.slow

CARDS = ROOT / "model_cards"


def results_of(model: SentenceTransformer, **changes: Any) -> dict[str, Any]:
    """As `evaluate` writes them."""
    provenance = model[2].provenance
    return {
        "command": "st-embfilter evaluate tiny",
        "machine": "a machine",
        "sha256": provenance["sha256"],
        "band": "edge",
        "prompt": 'Summarize the sentence: "{text}" in one word:"',
        "form": "portable",
        "tasks": [
            {
                "name": "STS13",
                "type": "STS",
                "dataset": "mteb/sts13-sts",
                "metric": "cosine_spearman",
                "scores": {"48": 12.3456, "24": 23.4567, "12": 34.5678},
            },
            {
                **{"name": "STS12", "type": "STS", "dataset": None, "metric": "cosine_spearman"},
                "scores": {"24": 7.0},
            },
        ],
        **changes,
    }


def card_of(model: SentenceTransformer, path: Path, facts: CardFacts) -> tuple[str, dict[str, Any]]:
    text = (save_pretrained(model, path, facts=facts) / "README.md").read_text()
    check_card(text)
    front: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return text, front


def test_results_are_metadata_at_the_dimensions_of_the_model(
    tiny_model: SentenceTransformer, tmp_path: Path
) -> None:
    facts = CardFacts("org/llm", "apache-2.0", results=results_of(tiny_model))
    text, front = card_of(tiny_model, tmp_path / "model", facts)
    assert front["base_model"] == "org/llm" and front["base_model_relation"] == "finetune"
    assert front["license"] == "apache-2.0" and "mteb" in front["tags"]
    assert front["library_name"] == "sentence-transformers" and "datasets" not in front
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert result["task"]["type"] == "STS"
    assert result["dataset"]["type"] == "mteb/sts13-sts"
    assert result["dataset"]["name"] == "MTEB STS13"
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("cosine_spearman", 23.457)
    assert "| STS13 | cosine_spearman | 12.35 | 23.46 | 34.57 |" in text
    assert "| STS12 * | cosine_spearman |  | 7.00 |" in text and "local files" in text
    assert "`st-embfilter evaluate tiny`, on a machine" in text


@pytest.mark.parametrize(
    "changes", [{"sha256": "0" * 64}, {"prompt": "{text}"}, {"form": "exact"}, {"band": "head"}]
)
def test_results_of_another_model_are_left_out(
    changes: dict[str, Any], tiny_model: SentenceTransformer, tmp_path: Path
) -> None:
    facts = CardFacts("org/llm", results=results_of(tiny_model, **changes))
    text, front = card_of(tiny_model, tmp_path / "model", facts)
    assert "model-index" not in front and "Measured" not in text and "mteb" not in front["tags"]


def test_picture_is_a_picture(tiny_artifact: Path) -> None:
    assert (tiny_artifact / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert "(spectrum.png)" in (tiny_artifact / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        ({}, ["vllm serve", "mteb.get_model"], ["trust_remote_code=True"]),
        ({"format": "exact"}, ["trust_remote_code=True"], ["vllm serve", "mteb.get_model"]),
        ({"prompt": "echo"}, ["weighted by position", "mteb.get_model"], ["vllm serve"]),
        ({"query_prompt": "none"}, ["encode_query", "prompt, query"], []),
        ({"band": "head"}, ["band `head`"], ["truncate_dim"]),
    ],
)
def test_snippets_fit_the_form(
    options: dict[str, Any], there: list[str], absent: list[str], tiny: Path, tmp_path: Path
) -> None:
    if options == {"query_prompt": "none"}:
        options = {"format": "exact", **options}
    model = build_model(tiny, **{"band": "edge", "device": "cpu", **options})
    text, _ = card_of(model, tmp_path / "model", CardFacts())
    assert [words for words in there if words not in text] == []
    assert [words for words in absent if words in text] == []


def test_command_on_the_card_builds_the_same(run: Run, tiny: Path, tmp_path: Path) -> None:
    model = build_model(
        tiny, k=10, band="random", seed=3, prompt='It\'s "{text}":', max_seq_length=40, device="cpu"
    )
    text, _ = card_of(model, tmp_path / "first", CardFacts())
    line = next(line for line in text.splitlines() if line.startswith("st-embfilter build"))
    command = [str(tiny) if part == tiny.name else part for part in shlex.split(line)[1:]]
    command[command.index("DIR")] = str(tmp_path / "second")
    assert run(*command).returncode == 0
    first, second = (
        json.loads((tmp_path / name / "embfilter.json").read_text()) for name in ("first", "second")
    )
    assert first == second


def test_licence_of_a_folder(tiny: Path, tmp_path: Path) -> None:
    assert read_licence(Source("tiny", tiny)).id is None
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\nA card.\n"
    )
    (tmp_path / "LICENSE").write_text("You may.")
    licence = read_licence(Source("llm", tmp_path))
    assert (licence.id, licence.name, licence.link) == ("other", "llama3", "LICENSE")
    assert licence.files == {"LICENSE": b"You may."}
    (tmp_path / "README.md").write_bytes(b'---\nlicense: "\n---\n\xff')
    assert read_licence(Source("llm", tmp_path)).id is None


def test_licence_goes_along(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / "llm").mkdir(exist_ok=True)
        (tmp_path / "llm" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "llm" / "README.md").write_text("---\nlicense: apache-2.0\n---\nA card.\n")
    (tmp_path / "llm" / "LICENSE").write_text("You may.")
    model = build_model(tmp_path / "llm", band="edge", device="cpu")
    _, front = card_of(model, tmp_path / "model", CardFacts())
    assert front["license"] == "apache-2.0"
    assert (tmp_path / "model" / "LICENSE").read_text() == "You may."
    verify(tmp_path / "model")


def test_a_licence_that_can_not_be_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As offline, where of a repository only what a model needs is in the cache."""

    def offline(*_: object) -> bool:
        raise SourceNotFoundError("org/llm: LICENSE is not in the local hub cache")

    monkeypatch.setattr(Source, "has", offline)
    assert read_licence(Source("org/llm", revision="0" * 40)) == Licence()
    assert "names no licence" in caplog.text and "not in the local hub cache" in caplog.text


def test_licence_of_a_gguf_file(smollm2: Path) -> None:
    assert read_licence(Source("llm", smollm2.parent, gguf_file=smollm2.name)).id == "apache-2.0"


@pytest.mark.parametrize("recipe", sorted(path.name for path in CARDS.glob("*.yaml")))
def test_recipes_can_be_read(recipe: str) -> None:
    assert "/" in read_recipe(CARDS / recipe).build["source"]


def test_build_of_a_recipe(run: Run, tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "source: org/llm\nratio: 4\nprompt: 'Say: \"{text}\"'\nmax_seq_length: 99\n"
        "format: exact\ncard:\n  base_model: org/llm\n  license: mit\n"
    )
    # What is given goes first: the source on this machine, and the form.
    options = ("--recipe", recipe, "--format", "portable", "--out", tmp_path / "model")
    built = run("build", "--band", "edge", tiny, *options, "--device", "cpu")
    assert built.returncode == 0, built.stderr
    manifest = json.loads((tmp_path / "model" / "embfilter.json").read_text())
    assert (manifest["k"], manifest["limit"], manifest["form"]) == (12, 99, "portable")
    assert manifest["prompt"] == 'Say: "{text}"'
    front = yaml.safe_load((tmp_path / "model" / "README.md").read_text().split("---\n")[1])
    assert front["base_model"] == "org/llm" and front["license"] == "mit"


BROKEN = {
    "ratio: 2": "names no source",
    "source: a\nratios: 2": "unknown ratios",
    "source: a\ncard:\n  licence: mit": "unknown licence",
    "source: a\ncard: [1]": "card is not",
    "source: a\ncard:\n  results: ../../secret.json": "beside it",
    "source: a\ncard:\n  results: none.json": "results can't be read",
    "source: a\ncard:\n  results: 7": "results can't be read",
    "source: a\ncard:\n  results: empty.json": "is not a card-",
    "- a": "holds no entries",
    "source: [": "is no recipe",
}


@pytest.mark.parametrize("content", BROKEN)
def test_broken_recipes(content: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(RecipeError, match=BROKEN[content]):
        read_recipe(path)


def test_broken_recipe_at_the_command_line(run: Run, tmp_path: Path) -> None:
    absent = (
        "build",
        "--band",
        "edge",
        "--recipe",
        tmp_path / "none.yaml",
        "--out",
        tmp_path / "model",
    )
    fails(run(*absent), 2, "none.yaml is no recipe")
    (tmp_path / "recipe.yaml").write_text("source: a/b\nratio: many")
    wrong = (
        "build",
        "--band",
        "edge",
        "--recipe",
        tmp_path / "recipe.yaml",
        "--out",
        tmp_path / "model",
    )
    assert run(*wrong).returncode == 2
