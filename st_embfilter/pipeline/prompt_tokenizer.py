"""How a tokenizer carries a prompt.

PromptEOL has text *behind* the input, which sentence-transformers' own ``prompts`` can't say, so
the portable form builds the template into the tokenizer as its post-processor: every runtime that
reads ``tokenizer.json`` then applies it, and truncation shortens the text and never the prompt.
"""

import json
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from st_embfilter.checkpoint.tokenizer import add_no_special_tokens
from st_embfilter.errors import CheckpointError, TemplateError
from st_embfilter.layout.exact_transformer import NAMED_TEMPLATES_KEY, TEMPLATE_KEY
from st_embfilter.pipeline.prompts import PLACEHOLDER, Prompts

# A letter that no usual tokenizer merges with punctuation or a space behind it.
ANCHOR = "a"

# How SentencePiece's vocabularies spell a space.
SPACE_AS_TOKEN = "▁"

# `^` is the start of a line to some readers of tokenizer.json, and `\A` not known to others.
SPACE_AT_START = r"(?<![\s\S]) "


def bake_template(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int,
    positions: int | None = None,
    rows: int | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer that puts every text into the template, and pads on the right.

    In front of the template stand the special tokens that the tokenizer itself puts in front of a
    text (as Llama's BOS). None is put behind it: what is pooled is the prompt's last token. With
    Echo there are BOS (or EOS, where there is none) in front and EOS behind, as in the reference.
    The result has no chat template. With the template ``{text}`` nothing else changes.

    Args:
        tokenizer: The source's tokenizer. It is not changed.
        template: Holds ``{text}`` once, or as Echo twice.
        max_length: The limit in tokens, prompt included; with Echo that of the text alone. The
            result's ``model_max_length`` is what a caller is to ask for.
        positions: How many tokens the model can take, if that is limited.
        rows: How many tokens have a row in the embedding matrix, if not all: what pads needs one.

    Raises:
        TemplateError: If the prompt leaves no room for text, or Echo finds no EOS token.
        CheckpointError: If the tokenizer has no ``tokenizer.json`` form, or makes no tokens.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError("the model's tokenizer has no tokenizer.json form")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    # Saved with some checkpoints; left in, they would pad or cut beside what the caller asks for.
    spec["truncation"] = spec["padding"] = None
    match template.split(PLACEHOLDER):
        case [before, after]:
            added = _put_around(spec, tokenizer, before, after)
            limit = room_for_text(added, False, max_length, positions) + added
        case [before, between, _]:
            added = _put_twice(spec, tokenizer, before, between)
            # The text is cut to what the limit leaves beside the prompt, and counts once there.
            limit = room_for_text(added, True, max_length, positions) + added
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        model_max_length=limit,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        # Decoders know no token types, and GPT-2 would add them to its embeddings.
        model_input_names=["input_ids", "attention_mask"],
        **_special_tokens(tokenizer, rows),
        **{TEMPLATE_KEY: template},
    )


def room_for_text(added: int, echo: bool, max_length: int, positions: int | None) -> int:
    """How many tokens of text there may be beside a prompt's.

    Args:
        added: The prompt's own tokens.
        echo: Whether the text stands there twice, and ``max_length`` is that of the text alone.
        max_length: The limit in tokens.
        positions: How many tokens the model can take, if that is limited.

    Raises:
        TemplateError: If there is no room.
    """
    if echo:
        room = max_length if positions is None else min(max_length, (positions - added) // 2)
    else:
        room = min(max_length, positions or max_length) - added
    if room <= 0:
        raise TemplateError(
            f"the prompt alone is {added} tokens long: a limit of "
            f"{min(max_length, positions or max_length)} leaves no room for text"
        )
    return room


def _check_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.eos_token_id is None:
        raise TemplateError("Echo closes with an EOS token, and this tokenizer names none")


def _put_around(
    spec: dict[str, Any], tokenizer: PreTrainedTokenizerBase, before: str, after: str
) -> int:
    """Have a ``tokenizer.json`` put a prompt around the text. Gives the number of its tokens."""
    if not (before or after):
        return 0
    front = _opening_special_tokens(tokenizer)
    if before:
        # A space in front of a word is part of the word's token, so it goes with the text.
        front += _encode_bare(Tokenizer.from_str(json.dumps(spec)), before.removesuffix(" "))
        _set_prefix_space(spec, before.endswith(" "))
    bare = Tokenizer.from_str(json.dumps(spec))
    back = _encode_behind_text(bare, after)
    spec["post_processor"] = _template_post_processor(bare, {"front": front, "back": back})
    return len(front) + len(back)


def _put_twice(
    spec: dict[str, Any], tokenizer: PreTrainedTokenizerBase, before: str, between: str
) -> int:
    """Have a ``tokenizer.json`` write the text twice. Gives the number of the prompt's tokens."""
    _check_eos(tokenizer)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    bare = Tokenizer.from_str(json.dumps(spec))
    pieces = {
        "front": [eos if bos is None else bos, *_encode_bare(bare, before)],
        "between": _encode_bare(bare, between),
        "back": [eos],
    }
    spec["post_processor"] = _template_post_processor(bare, pieces)
    return sum(map(len, pieces.values()))


def exact_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    max_length: int,
    bare_pieces: bool,
    rows: int | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer for an ``ExactTransformer``: the source's own, with the templates beside it.

    Args:
        tokenizer: The source's tokenizer. It is not changed.
        prompts: The templates.
        max_length: The limit in tokens: of the whole prompt, or with Echo of the text alone.
        bare_pieces: With Echo, leave out the special tokens that the tokenizer puts around a text,
            here around each piece of the template.
        rows: As for :func:`bake_template`.

    Raises:
        TemplateError: If Echo finds no EOS token.
        CheckpointError: If the tokenizer has no ``tokenizer.json`` form, or makes no tokens.
    """
    exact = bake_template(tokenizer, PLACEHOLDER, max_length, rows=rows)
    if prompts.echo:
        _check_eos(tokenizer)
        if bare_pieces:
            add_no_special_tokens(exact)
    exact.init_kwargs |= {TEMPLATE_KEY: prompts.plain, NAMED_TEMPLATES_KEY: prompts.named}
    return exact


def _special_tokens(tokenizer: PreTrainedTokenizerBase, rows: int | None) -> dict[str, str]:
    """The named special tokens, with one for padding in any case."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    tokens = {name: str(t) for name in names if (t := getattr(tokenizer, name)) is not None}
    # Padding is masked out, so any token will do that has a row in the embedding matrix.
    candidates = [
        tokens[name] for name in ("pad_token", "eos_token", "unk_token") if name in tokens
    ]
    candidates += [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    ids = tokenizer.get_vocab()
    known = [token for token in candidates if token in ids and ids[token] < (rows or len(ids))]
    return {**tokens, "pad_token": known[0] if known else _token_of_no_text(ids)}


def _token_of_no_text(ids: dict[str, int]) -> str:
    """A token for padding that no text holds as it is spelled: as padding it becomes special.

    Spelled with what stands for a space or a line break inside a vocabulary, and long.
    """
    return max(ids, key=lambda token: (any(c in token for c in "ĠĊ▁"), len(token), -ids[token]))


def _opening_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the tokenizer itself puts in front of a text."""
    bare = tokenizer(ANCHOR, add_special_tokens=False)["input_ids"]
    full = tokenizer(ANCHOR, add_special_tokens=True)["input_ids"]
    if not bare:
        raise CheckpointError(
            f"the tokenizer makes no token of {ANCHOR!r}: its files are broken, or of another kind "
            f"of model than config.json says"
        )
    at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return list(full[:at])


def _set_prefix_space(spec: dict[str, Any], wanted: bool) -> None:
    """Have a tokenizer put a space in front of every text, or none.

    SentencePiece's and some byte-level tokenizers put one in front of the first word. Here the
    text stands behind the prompt: the reference, which tokenizes template and text together, has a
    space where the template has one.
    """
    normalizers = [s for s in _steps(spec["normalizer"], "normalizers") if s["type"] != "Prepend"]
    splitters = _steps(spec["pre_tokenizer"], "pretokenizers")
    for step in splitters:
        if step["type"] == "Metaspace":
            step.pop("add_prefix_space", None)
            step["prepend_scheme"] = "never"
        elif step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    if wanted:
        metaspace = SPACE_AS_TOKEN in json.dumps([normalizers, splitters], ensure_ascii=False)
        # What stands between two added tokens of a text (Gemma's line breaks) is normalized by
        # itself, so that a normalizer would put a space behind each of them. This step alone
        # knows the start of the text. It puts none where there is one, which is prevented first:
        # by a space spelled otherwise, or at the price of one too many behind an added token.
        start = [{"type": "Metaspace", "replacement": " ", "prepend_scheme": "first"}]
        if metaspace:
            normalizers.append(_replace({"String": " "}, SPACE_AS_TOKEN))
            start.append(
                {"type": "Metaspace", "replacement": SPACE_AS_TOKEN, "prepend_scheme": "never"}
            )
        else:
            normalizers.insert(0, _replace({"Regex": SPACE_AT_START}, "  "))
        splitters = [{**step, "split": False} for step in start] + splitters
    spec["normalizer"] = {"type": "Sequence", "normalizers": normalizers} if normalizers else None
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": splitters} if splitters else None


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _steps(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The parts of a tokenizer's component, which may be none, one, or a sequence."""
    if component is None:
        return []
    inner: list[dict[str, Any]] = component.get(key, [component])
    return inner


def _encode_bare(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _encode_behind_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text as they are behind other text, not at the start."""
    ids = _encode_bare(tokenizer, ANCHOR + text)
    anchor = _encode_bare(tokenizer, ANCHOR)
    # Where the anchor merged with what follows, take the text as it is at the start.
    return ids[len(anchor) :] if ids[: len(anchor)] == anchor else _encode_bare(tokenizer, text)


def _template_post_processor(tokenizer: Tokenizer, pieces: dict[str, list[int]]) -> dict[str, Any]:
    """A ``TemplateProcessing`` with the text between each two pieces, which are lists of ids."""
    names = [f"<embfilter:{name}>" for name in pieces]

    def sequence(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    def alternate(*texts: dict[str, Any]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for name in names:
            parts += [{"SpecialToken": {"id": name, "type_id": 0}}, *texts]
        return parts[: -len(texts)]

    return {
        "type": "TemplateProcessing",
        "single": alternate(sequence("A")),
        "pair": alternate(sequence("A"), sequence("B")),
        "special_tokens": {
            name: {"id": name, "ids": ids, "tokens": [tokenizer.id_to_token(i) for i in ids]}
            for name, ids in zip(names, pieces.values(), strict=True)
        },
    }
