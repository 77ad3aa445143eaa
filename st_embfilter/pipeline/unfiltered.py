"""A language model's pipeline without its filter: prompt, backbone, pooling."""

import logging
from typing import Any, NamedTuple

from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from st_embfilter._compat import Pooling, Transformer, set_text_only
from st_embfilter.checkpoint.backbone import load_transformer
from st_embfilter.checkpoint.causal_config import rope_switch
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.source import Source
from st_embfilter.layout.exact_transformer import ExactTransformer
from st_embfilter.pipeline.choices import DEFAULT_MAX_SEQ_LENGTH, BuildChoices
from st_embfilter.pipeline.prompt_tokenizer import bake_template, exact_tokenizer, room_for_text
from st_embfilter.pipeline.prompts import Prompts

logger = logging.getLogger(__name__)

# The tokenizer classes that heed the reference's `add_bos_token=False` for Echo in its release of
# transformers (4.52.3). Others, as Llama 3's, go on to put BOS in front of every piece.
HEEDS_ADD_BOS_TOKEN = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")


class Backbone(NamedTuple):
    """A language model that was loaded once, for any number of prompts.

    Args:
        checkpoint: Where it is from.
        transformer: The module. A pipeline sets its tokenizer: only the last one made is of use.
        tokenizer: As the source has it.
    """

    checkpoint: Checkpoint
    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase


def load_for(checkpoint: Checkpoint, choices: BuildChoices) -> Backbone:
    """Load a language model in the form that is chosen.

    Raises:
        CheckpointError: If transformers can't load it.
    """
    form = Transformer if choices.carried else ExactTransformer
    return Backbone(checkpoint, *load_transformer(checkpoint, form, choices.dtype))


def unfiltered_pipeline(backbone: Backbone, choices: BuildChoices) -> SentenceTransformer:
    """Transformer → Pooling: the raw embeddings of plain texts, with the prompts chosen.

    Raises:
        TemplateError: If a prompt leaves no room for text, or Echo finds no EOS token.
        CheckpointError: If the tokenizer has no ``tokenizer.json`` form.
    """
    checkpoint, transformer, tokenizer = backbone
    prompts, carried = choices.prompts, choices.carried
    positions = _usable_positions(transformer.auto_model.config, choices.max_seq_length)
    embeddings: Any = transformer.auto_model.get_input_embeddings()
    rows = len(embeddings.weight)
    if isinstance(transformer, ExactTransformer):
        pooling_mode = "mean" if prompts.echo else "lasttoken"
        bare = bool(checkpoint.source.gguf_file) or (
            _tokenizer_class(checkpoint.source) in HEEDS_ADD_BOS_TOKEN
        )
        limit = min(choices.max_seq_length, positions or choices.max_seq_length)
        set_text_only(transformer, exact_tokenizer(tokenizer, prompts, limit, bare, rows))
        transformer.max_seq_length = _limit_exact(transformer, prompts, limit, positions)
    elif carried:
        # No stock module pools the second copy alone: this is nearest (docs/research/echo.md).
        pooling_mode = "weightedmean" if prompts.echo else "lasttoken"
        baked = bake_template(tokenizer, carried.template, choices.max_seq_length, positions, rows)
        set_text_only(transformer, baked)
        transformer.max_seq_length = baked.model_max_length
    return SentenceTransformer(
        modules=[transformer, Pooling(checkpoint.unembedding.shape[1], pooling_mode=pooling_mode)],
        device=choices.device,
        prompts=carried.fronts if carried else prompts.named,
        default_prompt_name=carried.default if carried else None,
    ).eval()


def _usable_positions(config: Any, max_seq_length: int) -> int | None:
    """How many tokens a model is to take at most, if that is limited."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    switch = rope_switch(config)
    if switch is None or max_seq_length == DEFAULT_MAX_SEQ_LENGTH:
        return min(switch, positions or switch) if switch else positions
    if max_seq_length > switch:
        logger.warning(
            "Beyond %d tokens this model turns positions by other factors, all of a batch alike. "
            "With max_seq_length %d, a short text's embedding depends on its company",
            switch,
            max_seq_length,
        )
    return positions


def _tokenizer_class(source: Source) -> str:
    """The tokenizer's class as its checkpoint names it, without transformers' ``Fast``."""
    if not source.has("tokenizer_config.json"):
        return ""
    name = source.read_json("tokenizer_config.json").get("tokenizer_class")
    return str(name).removesuffix("Fast")


def _limit_exact(
    transformer: ExactTransformer, prompts: Prompts, limit: int, positions: int | None
) -> int:
    """The limit of an exact pipeline: of the whole prompt, or with Echo of the text.

    Raises:
        TemplateError: If a prompt leaves no room for text.
    """
    added = max(
        len(transformer.render(template, "")[0])
        for template in (prompts.plain, *prompts.named.values())
    )
    room = room_for_text(added, prompts.echo, limit, positions)
    return room if prompts.echo else limit
