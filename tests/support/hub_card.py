"""What a hub checks of a model card's front matter."""

from typing import Any

import yaml

RELATIONS = ("adapter", "finetune", "merge", "quantized")


class RefusedError(Exception):
    """An answer that is an error: status, the hub's code, a text, and the commit it is about."""


def read_card(card: str) -> dict[str, Any]:
    """A model card's front matter; nothing, if it has none."""
    if not card.startswith("---\n"):
        return {}
    content = yaml.safe_load(card.split("---\n")[1])
    return content if isinstance(content, dict) else {}


def check_card(card: str) -> Any:
    """Refuse a card with fields that the hub doesn't take."""
    try:
        content = read_card(card)
    except yaml.YAMLError as error:
        raise RefusedError(400, None, f"Invalid YAML: {error}") from error
    kinds = {"tags": list, "license": str, "library_name": str, "pipeline_tag": str}
    for key, kind in kinds.items():
        if key in content and not isinstance(content[key], kind):
            raise RefusedError(400, None, f'"{key}" must be a {kind.__name__}')
    if content.get("base_model_relation", "finetune") not in RELATIONS:
        raise RefusedError(400, None, f'"base_model_relation" must be one of {RELATIONS}')
    for model in content.get("model-index", []):
        for result in model["results"]:
            if not {"type", "name"} <= set(result["dataset"]) or "type" not in result["task"]:
                raise RefusedError(400, None, '"model-index" lacks a field')
    return {"errors": [], "warnings": []}
