"""Templates, and how a tokenizer carries them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from st_embfilter.errors import CheckpointError, TemplateError
from st_embfilter.pipeline.prompt_tokenizer import bake_template
from st_embfilter.pipeline.prompts import (
    PROMPTS,
    Prompts,
    resolve_prompts,
    resolve_template,
    split_for_portable,
)
from support.models import byte_level_tokenizer, sentencepiece_tokenizer

PROMPTEOL = PROMPTS["prompteol"]


@pytest.mark.parametrize(
    "template",
    ["", "no place", "{text} and {text}!", "{text}{text}{text}", "{TEXT}", "{ text }"],
)
def test_template_needs_its_text(template: str) -> None:
    with pytest.raises(TemplateError, match="exactly once"):
        resolve_template(template)


def test_names_and_templates() -> None:
    assert resolve_template("prompteol") == 'Summarize the sentence: "{text}" in one word:"'
    assert resolve_template("none") == "{text}"
    assert resolve_template("{{}} {text}") == "{{}} {text}"
    assert resolve_template("echo").count("{text}") == 2
    assert resolve_prompts("echo").echo and not resolve_prompts("none").echo


def test_query_and_document_prompts_are_always_both_there() -> None:
    assert resolve_prompts("none").named == {}
    found = resolve_prompts("none", query="Q: {text}").named
    assert found == {"query": "Q: {text}", "document": "{text}"}
    with pytest.raises(TemplateError):
        resolve_prompts("none", query="")


@pytest.mark.parametrize(
    ("plain", "query", "document", "template", "fronts", "default"),
    [
        ("a {text} b", None, None, "a {text} b", {}, None),
        ("{text}", "Q: {text}", None, "{text}", {"query": "Q: ", "document": ""}, None),
        (
            'Sum the text: "{text}":',
            'Sum the question: "{text}":',
            None,
            '{text}":',
            {"query": 'Sum the question: "', "document": 'Sum the text: "'},
            "document",
        ),
        (
            "x {text}",
            "x y {text}",
            "x z {text}",
            "x {text}",
            {"query": "y ", "document": "z "},
            None,
        ),
        (
            "p {text}",
            "q {text}",
            "d {text}",
            "{text}",
            {"query": "q ", "document": "d ", "plain": "p "},
            "plain",
        ),
    ],
)
def test_split_for_portable(
    plain: str,
    query: str | None,
    document: str | None,
    template: str,
    fronts: dict[str, str],
    default: str | None,
) -> None:
    prompts = resolve_prompts(plain, query, document)
    portable = split_for_portable(prompts)
    assert portable.template == template and portable.fronts == fronts
    assert portable.default == default
    # What sentence-transformers makes of it is the templates again.
    for name, whole in prompts.named.items():
        assert portable.template.replace("{text}", fronts[name] + "{text}") == whole


def test_portable_prompts_end_alike() -> None:
    with pytest.raises(TemplateError, match="--format exact"):
        split_for_portable(Prompts("{text}", {"query": "{text}?", "document": "{text}"}))


@given(st.text(min_size=1, max_size=40))
def test_byte_level_tokens_spell_the_template(text: str) -> None:
    baked = bake_template(byte_level_tokenizer(), PROMPTEOL, 512)
    assert baked.decode(baked(text)["input_ids"]) == PROMPTEOL.replace("{text}", text)


def test_same_tokens_as_the_whole_text_where_nothing_merges_at_the_seam() -> None:
    tokenizer = byte_level_tokenizer()
    baked = bake_template(tokenizer, PROMPTEOL, 512)
    for text in ("A man is eating food", "Two dogs run", "jumps"):
        whole = tokenizer(PROMPTEOL.replace("{text}", text), add_special_tokens=False)["input_ids"]
        assert baked(text)["input_ids"] == whole


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "echo"])
def test_named_prompts_are_their_templates(name: str) -> None:
    tokenizer = byte_level_tokenizer(bos=True)
    tokenizer.add_tokens(["\n"])  # As in the vocabularies of Gemma.
    baked = bake_template(tokenizer, resolve_template(name), 512)
    whole = tokenizer(PROMPTS[name].replace("{text}", "A man is eating"))["input_ids"]
    assert baked("A man is eating")["input_ids"] == whole


def test_opening_special_tokens_stay_and_closing_ones_go() -> None:
    tokenizer = byte_level_tokenizer(bos=True, eos=True)
    ids = bake_template(tokenizer, PROMPTEOL, 512)("Two dogs run")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.bos_token_id not in ids[1:]


@pytest.mark.parametrize("legacy", [True, False])
def test_no_space_is_put_between_prompt_and_text(legacy: bool) -> None:
    tokenizer = sentencepiece_tokenizer(legacy)
    baked = bake_template(tokenizer, PROMPTEOL, 512)
    tokens = baked.convert_ids_to_tokens(baked("cats sleep")["input_ids"])
    assert tokens[0] == "<s>" and tokens[1].startswith("▁")
    assert "".join(tokens[1:]) == '▁Summarize▁the▁sentence:▁"cats▁sleep"▁in▁one▁word:"'


@pytest.mark.parametrize("text", ["Two dogs run", " spaced", "jumps over"])
def test_a_space_before_the_text_goes_with_its_first_word(text: str) -> None:
    template = "The sentence: {text} in one word:"
    for tokenizer in (
        byte_level_tokenizer(),
        sentencepiece_tokenizer(True),
        sentencepiece_tokenizer(False),
    ):
        baked = bake_template(tokenizer, template, 512)
        assert baked(text)["input_ids"] == tokenizer(template.replace("{text}", text))["input_ids"]


INNER_TOKENS = ["\n", "\n\n", "<b>", "</b>"]


@pytest.mark.parametrize("kind", ["byte level", "metaspace"])
@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo",
        "a <b>bold</b>  word",
        " spaced\ntwice",
        "  spaced\n\n<b>twice",
        "trailing ",
        "▁ alone",
    ],
)
def test_a_space_before_the_text_comes_once(kind: str, text: str) -> None:
    """And not again behind each added token in text and prompt, as Gemma's line breaks are."""
    tokenizer = (
        byte_level_tokenizer() if kind == "byte level" else sentencepiece_tokenizer(legacy=False)
    )
    tokenizer.add_tokens(INNER_TOKENS)
    template = 'Text: {text}\nKeyword: "'
    baked = bake_template(tokenizer, template, 512)
    assert baked(text)["input_ids"] == tokenizer(template.replace("{text}", text))["input_ids"]


@pytest.mark.parametrize("kind", ["byte level", "legacy", "metaspace"])
@pytest.mark.parametrize(
    "text", ["one\ntwo", "a <b>bold</b> word", "\n\nfirst", " spaced  twice", ""]
)
def test_prompts_that_differ_and_text_are_one_string(kind: str, text: str) -> None:
    """At added tokens inside a text, as Gemma's line breaks, no space comes in."""
    tokenizer = (
        byte_level_tokenizer()
        if kind == "byte level"
        else sentencepiece_tokenizer(kind == "legacy")
    )
    tokenizer.add_tokens([*INNER_TOKENS, "  "])
    front, back = 'Sum the question: "', '" in one word:"'
    prompts = resolve_prompts(f'Sum the text: "{{text}}{back}', f"{front}{{text}}{back}")
    carried = split_for_portable(prompts)
    baked = bake_template(tokenizer, carried.template, 512)
    behind = len(baked("")["input_ids"])
    found = baked(carried.fronts["query"] + text)["input_ids"]
    whole = tokenizer(front + text)["input_ids"]
    assert found[: len(whole)] == whole and len(found) <= len(whole) + behind


def test_none_leaves_the_tokens_as_they_are() -> None:
    for tokenizer in (byte_level_tokenizer(bos=True, eos=True), sentencepiece_tokenizer(True)):
        baked = bake_template(tokenizer, "{text}", 512)
        assert baked("The lazy dog")["input_ids"] == tokenizer("The lazy dog")["input_ids"]


@pytest.mark.parametrize("limit", [40, 64])
def test_truncation_cuts_only_text(limit: int) -> None:
    tokenizer = byte_level_tokenizer(bos=True)
    baked = bake_template(tokenizer, PROMPTEOL, limit)
    ids = baked("dog " * 500, truncation=True)["input_ids"]
    assert len(ids) == limit
    text = baked.decode(ids, skip_special_tokens=True)
    assert text.startswith('Summarize the sentence: "dog dog')
    assert text.endswith('" in one word:"')


def test_limit_without_room_for_text() -> None:
    with pytest.raises(TemplateError, match="leaves no room"):
        bake_template(byte_level_tokenizer(), PROMPTEOL, 5)


def test_padding_truncation_and_chat_template_of_the_source_are_dropped() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.padding_side = "left"
    tokenizer("warm up", padding="max_length", max_length=30, truncation=True)
    baked = bake_template(tokenizer, PROMPTEOL, 512)
    spec = json.loads(baked.backend_tokenizer.to_str())
    assert spec["truncation"] is None and spec["padding"] is None
    assert baked.chat_template is None and baked.padding_side == "right"
    assert baked.pad_token == "<|im_end|>"
    assert "token_type_ids" not in baked("a")


def test_a_tokenizer_that_makes_no_tokens() -> None:
    """As a class of another kind of model gives, made of files that aren't its own."""
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), eos_token="<end>")
    with pytest.raises(CheckpointError, match="makes no token of 'a'"):
        bake_template(empty, 'Say "{text}":', 512)


def test_source_tokenizer_is_not_changed() -> None:
    tokenizer = byte_level_tokenizer()
    before = tokenizer.backend_tokenizer.to_str()
    bake_template(tokenizer, PROMPTEOL, 512)
    assert tokenizer.backend_tokenizer.to_str() == before


def test_padding_token_is_found_where_none_is_named() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer().backend_tokenizer)
    assert bake_template(bare, PROMPTEOL, 512).pad_token == "<|endoftext|>"


def nameless(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that names no special token."""
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_padding_changes_no_text() -> None:
    """Where nothing is named, a token that no text holds as it is spelled becomes special."""
    letters = ["!", *sorted(set(ByteLevel.alphabet()) - {"!"}), "ĠĠĠ"]
    bare = nameless({letter: i for i, letter in enumerate(letters)})
    baked = bake_template(bare, "{text}", 512)
    assert baked.pad_token == "ĠĠĠ"
    for text in ("Hello!!!", "!", "a   b"):
        assert baked(text)["input_ids"] == bare(text)["input_ids"]


def test_padding_has_a_row_in_the_embedding_matrix() -> None:
    tokenizer = byte_level_tokenizer()
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert bake_template(tokenizer, PROMPTEOL, 512, rows=rows).pad_token == "<|im_end|>"
    assert bake_template(tokenizer, PROMPTEOL, 512, rows=rows + 1).pad_token == "[PAD]"
