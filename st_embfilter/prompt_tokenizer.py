"""How a tokenizer carries a prompt.

PromptEOL has text *behind* the input, which sentence-transformers' own ``prompts`` can't say, so
the portable form builds the template into the tokenizer as its post-processor: every runtime that
reads ``tokenizer.json`` then applies it, and truncation shortens the text and never the prompt.
"""

import json
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import ByteLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from st_embfilter.errors import CheckpointError, TemplateError
from st_embfilter.exact_transformer import NAMED_TEMPLATES_KEY, TEMPLATE_KEY
from st_embfilter.prompts import PLACEHOLDER, Prompts

# A letter that no usual tokenizer merges with punctuation or a space behind it.
ANCHOR = "a"


def bake_template(
    tokenizer: PreTrainedTokenizerBase, template: str, max_length: int
) -> PreTrainedTokenizerFast:
    """A tokenizer that puts every text into the template, and pads on the right.

    In front of the template stand the special tokens that the tokenizer itself puts in front of a
    text (as Llama's BOS). None is put behind it: what is pooled is the prompt's last token.
    The result has no chat template. With the template ``{text}`` nothing else changes.

    Args:
        tokenizer: The source's tokenizer. It is not changed.
        template: Holds ``{text}`` exactly once.
        max_length: The limit in tokens, prompt included.

    Raises:
        TemplateError: If the prompt alone takes up ``max_length``.
        CheckpointError: If the tokenizer has no ``tokenizer.json`` form.
    """
    if not tokenizer.is_fast:
        raise CheckpointError("the model's tokenizer has no tokenizer.json form")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    # Saved with some checkpoints; left in, they would pad or cut beside what the caller asks for.
    spec["truncation"] = spec["padding"] = None
    before, after = template.split(PLACEHOLDER)
    if before or after:
        front = opening_special_tokens(tokenizer)
        if before:
            # A space in front of a word is part of the word's token, so it goes with the text.
            front += encode_bare(Tokenizer.from_str(json.dumps(spec)), before.removesuffix(" "))
            set_prefix_space(spec, before.endswith(" "))
        bare = Tokenizer.from_str(json.dumps(spec))
        back = encode_behind_text(bare, after)
        if len(front) + len(back) >= max_length:
            raise TemplateError(
                f"the prompt alone is {len(front) + len(back)} tokens long: a limit of "
                f"{max_length} leaves no room for text"
            )
        spec["post_processor"] = template_post_processor(bare, front, back)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        # Decoders know no token types, and GPT-2 would add them to its embeddings.
        model_input_names=["input_ids", "attention_mask"],
        **special_tokens(tokenizer),
        **{TEMPLATE_KEY: template},
    )


def exact_tokenizer(
    tokenizer: PreTrainedTokenizerBase, prompts: Prompts, max_length: int, bare_pieces: bool
) -> PreTrainedTokenizerFast:
    """A tokenizer for an ``ExactTransformer``: the source's own, with the templates beside it.

    Args:
        tokenizer: The source's tokenizer. It is not changed.
        prompts: The templates.
        max_length: The limit in tokens: of the whole prompt, or with Echo of the text alone.
        bare_pieces: With Echo, leave out the special tokens that the tokenizer puts around a text,
            here around each piece of the template.

    Raises:
        CheckpointError: If the tokenizer has no ``tokenizer.json`` form.
    """
    exact = bake_template(tokenizer, PLACEHOLDER, max_length)
    if prompts.echo and bare_pieces:
        add_no_special_tokens(exact)
    exact.init_kwargs |= {TEMPLATE_KEY: prompts.plain, NAMED_TEMPLATES_KEY: prompts.named}
    return exact


def add_no_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a tokenizer put no special tokens around a text."""
    # The one post-processor that adds nothing.
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The named special tokens, with one for padding in any case."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    tokens = {name: str(t) for name in names if (t := getattr(tokenizer, name)) is not None}
    # Padding is masked out, so any token will do.
    fallback = tokens.get("eos_token") or tokens.get("unk_token")
    tokens.setdefault("pad_token", fallback or str(tokenizer.convert_ids_to_tokens(0)))
    return tokens


def opening_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the tokenizer itself puts in front of a text."""
    bare = tokenizer(ANCHOR, add_special_tokens=False)["input_ids"]
    full = tokenizer(ANCHOR, add_special_tokens=True)["input_ids"]
    at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return list(full[:at])


def set_prefix_space(spec: dict[str, Any], wanted: bool) -> None:
    """Have a tokenizer put a space in front of every text, or none.

    SentencePiece's and some byte-level tokenizers put one in front of the first word. Here the
    text stands behind the prompt: the reference, which tokenizes template and text together, has a
    space where the template has one.
    """
    normalizers = [s for s in steps(spec["normalizer"], "normalizers") if s["type"] != "Prepend"]
    if wanted:
        # First, so that what turns spaces into other characters turns this one too.
        normalizers.insert(0, {"type": "Prepend", "prepend": " "})
    spec["normalizer"] = {"type": "Sequence", "normalizers": normalizers} if normalizers else None
    for step in steps(spec["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace":
            step.pop("add_prefix_space", None)
            step["prepend_scheme"] = "never"
        elif step["type"] == "ByteLevel":
            step["add_prefix_space"] = False


def steps(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The parts of a tokenizer's component, which may be none, one, or a sequence."""
    if component is None:
        return []
    inner: list[dict[str, Any]] = component.get(key, [component])
    return inner


def encode_bare(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def encode_behind_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text as they are behind other text, not at the start."""
    ids = encode_bare(tokenizer, ANCHOR + text)
    anchor = encode_bare(tokenizer, ANCHOR)
    # Where the anchor merged with what follows, take the text as it is at the start.
    return ids[len(anchor) :] if ids[: len(anchor)] == anchor else encode_bare(tokenizer, text)


def template_post_processor(
    tokenizer: Tokenizer, front: list[int], back: list[int]
) -> dict[str, Any]:
    """A ``TemplateProcessing`` that puts ``front`` before and ``back`` behind the text."""
    pieces = {"<embfilter:front>": front, "<embfilter:back>": back}

    def around(*sequences: str) -> list[dict[str, Any]]:
        return [
            {"SpecialToken": {"id": "<embfilter:front>", "type_id": 0}},
            *({"Sequence": {"id": sequence, "type_id": 0}} for sequence in sequences),
            {"SpecialToken": {"id": "<embfilter:back>", "type_id": 0}},
        ]

    return {
        "type": "TemplateProcessing",
        "single": around("A"),
        "pair": around("A", "B"),
        "special_tokens": {
            name: {"id": name, "ids": ids, "tokens": [tokenizer.id_to_token(i) for i in ids]}
            for name, ids in pieces.items()
        },
    }
