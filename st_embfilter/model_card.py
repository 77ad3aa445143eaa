"""The model card: the artifact's README.md, made from its manifest."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("model_card_template.md")


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
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=manifest["source"].rpartition("/")[2],
        width=width,
        nested=manifest["band"] == "edge",
        dimensions=[(ratio, width // ratio) for ratio in ratios if width // ratio],
        shape=" × ".join(f"{extent:,}" for extent in manifest["shape"]),
        **{key: manifest[key] for key in manifest if key not in ("singular_values", "shape")},
    )
    return str(card)
