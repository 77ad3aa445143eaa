"""The tokenizer of a source, as it has it."""

from typing import Any

from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from st_embfilter.checkpoint.gguf_file import tokenizer_settings
from st_embfilter.checkpoint.source import Source
from st_embfilter.errors import CheckpointError

# Of a repository of Mistral's, transformers would take tekken.json where mistral-common is
# installed, in a form that can't be changed or saved. It has the same in tokenizer.json.
TOKENIZER_OPTIONS = {"mistral_format": False}


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer as the source has it.

    Raises:
        CheckpointError: If it has none, or one that transformers can't load.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.location, **loading_options(source), **TOKENIZER_OPTIONS
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{source.name} has no tokenizer that transformers can load: {error}"
        ) from error
    follow_gguf(tokenizer, source)
    return tokenizer


def loading_options(source: Source) -> dict[str, Any]:
    """What transformers is told for model, tokenizer and configuration alike."""
    # Said outright: where it isn't, a terminal's user is asked whether to run a repository's code.
    options: dict[str, Any] = {"trust_remote_code": False}
    if source.revision:
        options["revision"] = source.revision
    if source.gguf_file:
        options["gguf_file"] = source.gguf_file
    return options


def follow_gguf(tokenizer: PreTrainedTokenizerBase, source: Source) -> None:
    """Have a GGUF file's tokenizer do as the file says; any other stays as it is.

    transformers 4 always puts BOS in front, and may take BOS for EOS.
    """
    if not (source.gguf_file and source.folder):
        return
    settings = tokenizer_settings(source.folder / source.gguf_file)
    if settings.get("add_bos_token") is False:
        add_no_special_tokens(tokenizer)
    for name in ("bos_token", "eos_token"):
        if f"{name}_id" in settings:
            token = tokenizer.convert_ids_to_tokens(settings[f"{name}_id"])
            setattr(tokenizer, name, token)


def add_no_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a tokenizer put no special tokens around a text."""
    # The one post-processor that adds nothing.
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for no context: BOS, or EOS where there is no BOS.

    Raises:
        CheckpointError: If the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise CheckpointError(
        f"{tokenizer.name_or_path}: the tokenizer has neither BOS nor EOS to start from: give it "
        f"texts"
    )
