"""PrefixEncoder: what model.encode gives, in every form, and a word where it can't."""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM

from st_embfilter import build_model
from st_embfilter._compat import Pooling, Transformer, tokenize
from st_embfilter.encoding.batches import Tokens, batches, shared_length
from st_embfilter.encoding.checks import room_for_text
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.errors import MisuseError, NonFiniteError
from support.comparing import relative
from support.models import byte_level_tokenizer

TEXTS = ["a text", "another one, which is longer", "x", "", "a text", "word " * 300, "a text."]
FORMS: list[dict[str, Any]] = [
    {},
    {"format": "exact"},
    {"prompt": "echo"},
    {"prompt": "echo", "format": "exact"},
    {"prompt": "{text} in a word:"},
    {"max_seq_length": 30},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gives_what_encode_gives(tiny: Path, form: dict[str, Any]) -> None:
    model = build_model(tiny, band="edge", device="cpu", **form)
    encoder = PrefixEncoder(model)
    found = encoder.encode(TEXTS, batch_size=2)
    assert encoder.reason is None and found.dtype == np.float32
    assert relative(found, model.encode(TEXTS)) < 1e-5


def test_settings_are_encodes(tiny_model: SentenceTransformer) -> None:
    encoder = PrefixEncoder(tiny_model)
    found = encoder.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert relative(found, tiny_model.encode(TEXTS, normalize_embeddings=True)) < 1e-5
    assert encoder.encode([]).shape[0] == 0
    assert np.array_equal(encoder.encode(["x"] * 3)[0], encoder.encode(["x"] * 3)[2])


@pytest.mark.parametrize("format", ["portable", "exact"])
def test_named_prompts_and_dimensions(tiny: Path, format: Any) -> None:
    model = build_model(
        tiny, band="edge", device="cpu", query_prompt='Find "{text}" in one word:"', format=format
    )
    model.truncate_dim = 7
    encoder = PrefixEncoder(model)
    found = encoder.encode(TEXTS, prompt_name="query")
    assert encoder.reason is None and found.shape == (len(TEXTS), 7)
    assert relative(found, model.encode(TEXTS, prompt_name="query")) < 1e-5


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("prompt", [None, "Say: "])
def test_roles_and_prompts(tiny: Path, role: Any, prompt: str | None) -> None:
    model = build_model(tiny, band="edge", device="cpu", query_prompt='Find "{text}" in one word:"')
    encoder = PrefixEncoder(model)
    found = encoder.encode(TEXTS, role=role, prompt=prompt)
    expected = getattr(model, f"encode_{role}")(TEXTS, prompt=prompt)
    assert encoder.reason is None
    assert relative(found, expected) < 1e-5
    # Another prompt on the way, and back: each is tried.
    assert relative(encoder.encode(TEXTS), model.encode(TEXTS)) < 1e-5
    assert relative(encoder.encode(TEXTS, role=role, prompt=prompt), expected) < 1e-5


def test_a_router_gets_the_role(tiny_model: SentenceTransformer) -> None:
    router = pytest.importorskip("sentence_transformers.sentence_transformer.modules").Router
    query, document = list(tiny_model), list(tiny_model)[:-1]
    model = SentenceTransformer(modules=[router.for_query_document(query, document)], device="cpu")
    encoder = PrefixEncoder(model)
    for role in ("query", "document"):
        expected = getattr(model, f"encode_{role}")(TEXTS)
        assert np.array_equal(encoder.encode(TEXTS, role=role), expected)
    assert encoder.reason


def test_bfloat16(tiny: Path) -> None:
    model = build_model(tiny, band="edge", device="cpu", dtype=torch.bfloat16)
    encoder = PrefixEncoder(model)
    found = encoder.encode(TEXTS)
    assert encoder.reason is None
    assert relative(found, model.encode(TEXTS)) < 0.05


def test_any_other_model_is_left_to_itself(
    tiny_model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    class Constant(nn.Module):
        def tokenize(self, texts: list[str], **_: Any) -> dict[str, Any]:
            return {"n": torch.tensor([len(text) for text in texts])}

        preprocess = tokenize

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            return {**features, "sentence_embedding": features["n"][:, None].float().repeat(1, 4)}

    model = SentenceTransformer(modules=[Constant()], device="cpu")
    encoder = PrefixEncoder(model)
    with caplog.at_level(logging.WARNING):
        found = encoder.encode(["one", "three"])
    assert found.tolist() == [[3.0] * 4, [5.0] * 4]
    assert encoder.reason and len(caplog.records) == 1 and encoder.reason in caplog.text


class Wrong(PrefixEncoder):
    """Forgets the prompt."""

    def _embed(self, rows: list[Tokens], prefix: Any, length: int) -> torch.Tensor:
        bare = [Tokens(row.ids[length:], row.pooled[length:]) for row in rows]
        return super()._embed(bare, None, 0)


def test_another_result_is_noticed(tiny_model: SentenceTransformer) -> None:
    encoder = Wrong(tiny_model)
    found = encoder.encode(TEXTS)
    assert encoder.reason and "off by" in encoder.reason
    assert relative(found, tiny_model.encode(TEXTS)) < 1e-5


def test_an_encoder_that_looks_both_ways(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    config = BertConfig(
        vocab_size=411,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    transformer = Transformer(str(tmp_path))
    model = SentenceTransformer(modules=[transformer, Pooling(24)], device="cpu")
    encoder = PrefixEncoder(model)
    texts = ["same start, one", "same start, two and more"]
    assert relative(encoder.encode(texts), model.encode(texts)) < 1e-5
    assert encoder.reason


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=8)


@given(st.lists(tokens, min_size=1, max_size=8))
def test_shared_length(rows: list[list[int]]) -> None:
    length = shared_length([Tokens(torch.tensor(r), torch.ones(len(r))) for r in rows])
    assert all(row[:length] == rows[0][:length] and len(row) > length for row in rows)
    longer = length + 1
    assert any(row[:longer] != rows[0][:longer] or len(row) <= longer for row in rows)


@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=60),
    st.integers(1, 100),
    st.none() | st.integers(0, 50),
)
@settings(max_examples=50)
def test_batches_hold_every_text_once(lengths: list[int], limit: int, spare: int | None) -> None:
    rows = [Tokens(torch.zeros(n, dtype=torch.long), torch.ones(n)) for n in lengths]
    order = sorted(range(len(rows)), key=lambda row: -lengths[row])
    cut = batches(order, rows, 1, limit, spare)
    assert [row for batch in cut for row in batch] == order
    for batch in cut:
        assert len(batch) == 1 or (lengths[batch[0]] - 1) * len(batch) <= limit
        assert spare is None or sum(lengths[batch[0]] - lengths[row] for row in batch) <= spare
    for batch, following in pairwise(cut):
        longest, added = lengths[batch[0]], [*batch, following[0]]
        padding = sum(longest - lengths[row] for row in added)
        assert (longest - 1) * len(added) > limit or (spare is not None and padding > spare)


def test_what_is_no_text_is_not_embedded(tiny_model: SentenceTransformer) -> None:
    encoder = PrefixEncoder(tiny_model)
    for odd in (None, float("nan"), 3, b"bytes"):
        with pytest.raises(TypeError, match=f"not {type(odd).__name__}"):
            encoder.encode(["a text", odd])  # type: ignore[list-item]


@pytest.mark.parametrize("reused", [True, False])
def test_an_embedding_that_says_nothing_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    """As float16 gives it where activations overflow: the text is named."""
    model = build_model(tiny, band="edge", device="cpu")
    encoder = PrefixEncoder(model)
    encoder.encode(["fine", "also fine"])
    if not reused:
        encoder.reason = "for the test"
    rows = model[0].auto_model.get_input_embeddings().weight
    ids = model.tokenizer("fine Zebra")["input_ids"]
    only = set(ids) - set(model.tokenizer("fine")["input_ids"])
    with torch.no_grad():
        rows[list(only)] = torch.inf
    assert np.isfinite(encoder.encode(["fine"])).all()
    with pytest.raises(NonFiniteError, match=r"of 'fine Zebra' holds NaN .* 0 more of 2"):
        encoder.encode(["fine", "fine Zebra"])
    with pytest.raises(NonFiniteError, match="of 'fine Zebra'"):
        PrefixEncoder(model).encode(["fine", "fine Zebra"])


@pytest.fixture(scope="module")
def long_rope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Phi-3, of which all positions are turned otherwise beyond 64 tokens."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "phi3"
    rope = {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [4.0] * 6}
    config = Phi3Config(
        vocab_size=411,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        original_max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        rope_scaling=rope,
    )
    Phi3ForCausalLM(config).save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_limit_stops_where_rotary_factors_switch(
    long_rope: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model(long_rope, band="edge", device="cpu")
    assert model.max_seq_length == 64 and "Beyond" not in caplog.text
    texts = ["short", "word " * 200]
    alone = np.stack([model.encode(text) for text in texts])
    assert relative(model.encode(texts), alone) < 1e-4
    build_model(long_rope, band="edge", max_seq_length=400, device="cpu")
    assert "Beyond 64 tokens" in caplog.text
    assert build_model(long_rope, band="edge", max_seq_length=60, device="cpu").max_seq_length == 60


@pytest.mark.slow
def test_each_text_is_as_it_is_alone_on_both_sides_of_the_switch(long_rope: Path) -> None:
    """Whichever come first, and whatever is in their company."""
    model = build_model(long_rope, band="edge", max_seq_length=400, device="cpu")
    short, long = ["a b", "dogs run", ""], ["word " * 100, "cat " * 90]
    alone = {text: model.encode(text) for text in short + long}
    for order in ([short, long], [long, short], [short + long]):
        encoder = PrefixEncoder(model)
        for texts in order:
            expected = np.stack([alone[text] for text in texts])
            assert relative(encoder.encode(texts), expected) < 1e-4
        assert encoder.reason is None


@pytest.mark.parametrize("limit", [1, 9, 10])
@pytest.mark.parametrize("form", [{}, {"format": "exact"}, {"prompt": "echo"}])
def test_a_limit_without_room_for_text_is_refused(
    tiny: Path, form: dict[str, Any], limit: int
) -> None:
    """sentence-transformers embeds every text uncut, or the prompt alone."""
    model = build_model(tiny, band="edge", ratio=2, **form)
    model.max_seq_length = limit
    with pytest.raises(MisuseError, match="no room for text"):
        PrefixEncoder(model).encode(["word " * 300])


@pytest.mark.parametrize("form", [*FORMS, {"prompt": "none"}], ids=str)
def test_what_is_cut_is_counted(tiny: Path, form: dict[str, Any]) -> None:
    model = build_model(tiny, band="edge", ratio=2, **form)
    room = room_for_text(model, "")
    assert room
    room //= 2 if form == {"prompt": "echo"} else 1  # Its tokenizer counts twice.
    encoder = PrefixEncoder(model)
    texts = ["a" + " a" * (length - 1) for length in (room, room + 1, 3, room + 50)]
    encoder.encode([*texts, texts[1]])
    assert encoder.cut == 3
    seen = tokenize(model, texts)["attention_mask"].sum(dim=1).tolist()
    assert seen[0] == seen[1] == seen[3] > seen[2]
