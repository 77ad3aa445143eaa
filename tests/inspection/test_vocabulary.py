"""A tokenizer's tokens: their kinds, how frequent they are, and which are a text's own."""

from pathlib import Path

import torch

from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.checkpoint.language_model import load_language_model
from st_embfilter.inspection.figures import Token
from st_embfilter.inspection.vocabulary import Vocabulary
from support.models import byte_level_tokenizer


def test_kinds_of_tokens(tiny: Path) -> None:
    tokenizer = load_language_model(find_checkpoint(tiny), device="cpu")[1]
    vocabulary = Vocabulary(tokenizer, -torch.arange(411.0))
    assert vocabulary.token(1) == Token(1, "<|im_start|>", 2, "special")
    (dogs,) = tokenizer(" dogs", add_special_tokens=False)["input_ids"][-1:]
    assert vocabulary.token(dogs).kind == "ordinary"
    beyond = max(tokenizer.get_vocab().values()) + 1
    assert vocabulary.token(beyond) == Token(beyond, "", beyond + 1, "none")
    (part, _) = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert vocabulary.token(part).text == tokenizer.convert_ids_to_tokens(part) == "Ã"
    sets = vocabulary.sets(50)
    assert all(len(ids) == 50 for ids in sets.values())
    for ids in sets.values():
        assert all(vocabulary.token(token).kind == "ordinary" for token in ids.tolist())
    assert vocabulary.ranks[sets["frequent"]].max() < vocabulary.ranks[sets["rare"]].min()


def test_the_texts_own_tokens() -> None:
    tokenizer = byte_level_tokenizer()
    vocabulary = Vocabulary(tokenizer, -torch.arange(411.0))
    (dog, fox, d) = (tokenizer.get_vocab()[piece] for piece in ("Ġdog", "Ġfox", "d"))
    row = torch.tensor([[dog, fox, d, 1]])
    assert vocabulary.own_share(["Two DOGS run"], row, 1) == 1 / 4
    assert vocabulary.own_share(["Fox and dog."], row, 1) == 2 / 4
    assert vocabulary.own_share(["<|im_start|> hot-dogs"], row, 1) == 1 / 4
    # One of the most frequent isn't informative.
    assert vocabulary.own_share(["Two dogs run"], row, int(vocabulary.ranks[dog])) == 0
