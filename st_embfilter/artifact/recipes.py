"""A recipe: one YAML file that says how a model is built, and what its card tells beyond that."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from st_embfilter.artifact.card import MEASURED_OF, CardFacts
from st_embfilter.errors import RecipeError

# The options of `build`, by the names of the command line.
BUILD_KEYS = (
    "source",
    "revision",
    "ratio",
    "dims",
    "band",
    "seed",
    "prompt",
    "query_prompt",
    "document_prompt",
    "format",
    "max_seq_length",
    "dtype",
    "thin",
)
RESULT_KEYS = {*MEASURED_OF, "command", "machine", "tasks"}
CARD_KEYS = ("base_model", "license", "license_name", "license_link", "results")


@dataclass(frozen=True)
class Recipe:
    """A recipe's content.

    Attributes:
        build: Options of ``build``.
        card: What the model card tells.
    """

    build: dict[str, Any]
    card: CardFacts


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: If it can't be read, or holds what a recipe doesn't.
    """
    content = _read_mapping(path)
    card = content.pop("card", None) or {}
    if not isinstance(card, dict):
        raise RecipeError(f"{path}: card is not a list of entries")
    _check_keys(path, content, BUILD_KEYS)
    _check_keys(path, card, CARD_KEYS)
    if "source" not in content:
        raise RecipeError(f"{path} names no source")
    if results := card.pop("results", None):
        card["results"] = _read_results(path, str(results))
    return Recipe(content, CardFacts(**card))


def _read_results(recipe: Path, name: str) -> dict[str, Any]:
    """The measured scores in a file beside a recipe."""
    # A path in a recipe never leaves its folder.
    if Path(name).name != name:
        raise RecipeError(f"{recipe}: results {name!r} is not the name of a file beside it")
    try:
        results = json.loads((recipe.parent / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{recipe}: its results can't be read: {error}") from error
    if not isinstance(results, dict) or not set(results) >= RESULT_KEYS:
        raise RecipeError(f"{recipe}: {name} is not a card-….json of st-embfilter evaluate")
    return results


def _read_mapping(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is no recipe: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is no recipe: it holds no entries")
    return content


def _check_keys(path: Path, entries: dict[Any, Any], known: tuple[str, ...]) -> None:
    """Refuse entries that mean nothing."""
    if unknown := [str(key) for key in entries if key not in known]:
        raise RecipeError(f"{path}: unknown {', '.join(unknown)} (known: {', '.join(known)})")
