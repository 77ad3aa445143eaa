"""Which of a source's tokenizers is read."""

import shutil
from pathlib import Path

import pytest
from transformers import MistralConfig, MistralForCausalLM

from st_embfilter import build_model
from st_embfilter.checkpoint.source import resolve_source
from st_embfilter.checkpoint.tokenizer import load_tokenizer
from support.models import byte_level_tokenizer

TEXTS = ["Hello there", "two  spaces", "naïve 日本"]


@pytest.fixture(scope="module")
def with_tekken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Mistral's repositories are: tekken.json (here of another model) beside tokenizer.json."""
    mistral_common = pytest.importorskip(
        "mistral_common", reason="mistral-common isn't installed (make .venv/.stamp does)"
    )
    folder = tmp_path_factory.mktemp("mistral")
    settings = MistralConfig(
        vocab_size=411, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
    )  # fmt: skip
    MistralForCausalLM(settings).save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    [tekken, *_] = sorted((Path(mistral_common.__file__).parent / "data").glob("tekken*.json"))
    shutil.copy(tekken, folder / "tekken.json")
    return folder


def test_tokenizer_json_is_read_where_tekken_lies_beside_it(with_tekken: Path) -> None:
    read = load_tokenizer(resolve_source(str(with_tekken)))
    assert read(TEXTS)["input_ids"] == byte_level_tokenizer()(TEXTS)["input_ids"]


@pytest.mark.parametrize("artifact_format", ["portable", "exact"])
def test_models_are_built_where_tekken_lies_beside_it(
    with_tekken: Path, artifact_format: str
) -> None:
    model = build_model(with_tekken, band="edge", ratio=2, prompt="none", format=artifact_format)
    read = model.tokenizer(TEXTS)["input_ids"]
    assert read == byte_level_tokenizer()(TEXTS)["input_ids"]
