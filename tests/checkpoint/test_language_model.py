"""The whole language model: its own logits, and what can't be loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.checkpoint.language_model import load_language_model
from st_embfilter.errors import CheckpointError, NoUnembeddingError
from support.families import FAMILIES, MULTIMODAL, save_tiny
from support.models import tiny_llama

# Soft-capped logits, scaled ones in two ways, and models with a language model inside.
SPECIAL = ["Gemma 2", "Granite", "Cohere", "Qwen2.5-VL", "Gemma 3, with vision"]


@pytest.mark.parametrize("family", SPECIAL)
def test_logits_are_the_models_own(family: str, tmp_path: Path) -> None:
    if TRANSFORMERS_MAJOR < 5 and "rope_parameters" in str((FAMILIES | MULTIMODAL)[family]):
        pytest.skip(f"{family} is written for transformers 5 here")
    expected = save_tiny(family, tmp_path / "llm")
    model, tokenizer = load_language_model(find_checkpoint(tmp_path / "llm"), device="cpu")
    ids = tokenizer("two dogs", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        assert torch.equal(logits, expected(input_ids=ids).logits)
        head = expected.get_output_embeddings().weight
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    plain = states @ head.T
    assert torch.allclose(logits, plain, atol=1e-4) == (family not in SPECIAL[:3])
    assert not model.training


def test_dtype_is_the_stored_one_or_the_one_asked_for(tmp_path: Path) -> None:
    source = find_checkpoint(tiny_llama(tmp_path / "half", dtype=torch.bfloat16))
    assert load_language_model(source, device="cpu")[0].dtype == torch.bfloat16
    assert load_language_model(source, torch.float32, "cpu")[0].dtype == torch.float32


def test_what_can_not_be_loaded(tmp_path: Path) -> None:
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    ).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no tokenizer that transformers can load"):
        load_language_model(find_checkpoint(tmp_path / "bert"))

    whole = tiny_llama(tmp_path / "whole")
    weights = load_file(whole / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, whole / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks weights .*lm_head"):
        load_language_model(find_checkpoint(whole))

    tiny = tiny_llama(tmp_path / "tiny")
    config = tiny / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "LlamaModel"))
    with pytest.raises(NoUnembeddingError, match="no language-model head"):
        load_language_model(find_checkpoint(tiny))
