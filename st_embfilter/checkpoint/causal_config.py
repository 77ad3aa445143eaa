"""A source's configuration: has it a language-model head, and is it more than a text model?"""

from typing import Any

import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from st_embfilter.checkpoint.source import Source
from st_embfilter.errors import CheckpointError, NoUnembeddingError

TRANSFORMERS_MAJOR = int(transformers.__version__.split(".")[0])


def load_config(source: Source) -> Any:
    """The configuration of a causal language model, or of a multimodal model with one inside.

    Raises:
        NoUnembeddingError: If the model has no language-model head that predicts the next token.
        CheckpointError: If ``config.json`` can't be used.
    """
    content = source.read_json("config.json")
    architectures = content.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise CheckpointError(f"{source.name}: config.json names no classes as architectures")
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    # A class of a repository's own code is not among the known ones, but says what it is.
    causal = any(name in known or name.endswith("ForCausalLM") for name in architectures)
    may_be_multimodal = any(name.endswith("ForConditionalGeneration") for name in architectures)
    if architectures and not (causal or may_be_multimodal):
        raise _no_head(source, architectures[0])
    try:
        # Without the last argument, a terminal's user is asked whether to run a repository's code.
        config = AutoConfig.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=False
        )
        multimodal = is_multimodal(config)
    except Exception as error:  # Of a configuration's own checks, anything may come.
        raise CheckpointError(
            f"{source.name}: config.json can't be used: {' '.join(str(error).split())}"
        ) from error
    if architectures and not causal and not multimodal:
        raise _no_head(source, architectures[0])
    both_ways = getattr(config.get_text_config(), "use_bidirectional_attention", None)
    if both_ways in (True, "all") or config.model_type == "paligemma":
        raise NoUnembeddingError(
            f"{source.name} is not causal: its text part attends to what comes after a token too "
            f"(as PaliGemma's), so its last token has no next-token state to filter"
        )
    return config


def is_multimodal(config: Any) -> bool:
    """Whether a configuration is of a model that has a text decoder as one of its parts."""
    return config.get_text_config() is not config and not config.is_encoder_decoder


def _no_head(source: Source, architecture: str) -> NoUnembeddingError:
    return NoUnembeddingError(
        f"{source.name} is a {architecture}: it has no language-model head that predicts the next "
        f"token, to take the filter from. Use the causal language model's own checkpoint"
    )


def rope_switch(config: Any) -> int | None:
    """How many tokens a model with long rope (Phi-3's) takes before it turns all by other factors.

    A batch with a longer text in it is computed with the others as a whole, so the embedding of a
    short text then depends on its company.

    Returns:
        None for a model that has one set of factors.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) != "longrope":
        return None
    named = "original_max_position_embeddings"
    switch: int | None = getattr(config, named, None) or rope.get(named)
    return switch
