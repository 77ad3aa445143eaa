"""The model card: the artifact's README.md, made from its manifest."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from st_embfilter.prompts import Prompts

TEMPLATE = Path(__file__).with_name("model_card_template.md")
# Of the manifest's entries.
NOT_AS_IT_IS = ("singular_values", "shape", "prompt", "prompts")


def model_card(manifest: dict[str, Any]) -> str:
    """The card of an artifact, with front matter, as Markdown."""
    on_hub = manifest["revision"] is not None
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "embfilter"],
        base_model=manifest["source"] if on_hub else None,
    )
    width = len(manifest["singular_values"])
    ratios = [ratio for ratio in (1, 2, 4, 8, 16) if width // ratio <= manifest["k"]]
    exact = manifest["form"] == "exact"
    pooled, limit_of = "last token", "prompt included"
    if Prompts(manifest["prompt"]).echo:
        if exact:
            pooled, limit_of = "mean over the second copy of the text and EOS", "of the text"
        else:
            pooled = "mean over all tokens, weighted by position"
            limit_of = "prompt included, the text counted once"
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=manifest["source"].rpartition("/")[2],
        width=width,
        nested=manifest["band"] == "edge",
        dimensions=[(ratio, width // ratio) for ratio in ratios if width // ratio],
        trust=", trust_remote_code=True" if exact else "",
        pooled=pooled,
        limit_of=limit_of,
        shape=" × ".join(f"{extent:,}" for extent in manifest["shape"]),
        prompt=in_table(manifest["prompt"]),
        prompts={name: in_table(template) for name, template in manifest["prompts"].items()},
        **{key: manifest[key] for key in manifest if key not in NOT_AS_IT_IS},
    )
    return str(card)


def in_table(template: str) -> str:
    """A template as code in one cell of a Markdown table."""
    for character, written in (("\n", "\\n"), ("|", "\\|"), ("`", "'")):
        template = template.replace(character, written)
    return template
