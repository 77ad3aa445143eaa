"""The model card: the artifact's README.md, made from its manifest and what else is known."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from st_embfilter.checkpoint.licence import Licence
from st_embfilter.layout.manifest import Manifest
from st_embfilter.layout.names import REPOSITORY
from st_embfilter.pipeline.prompts import PROMPTS, Prompts
from st_embfilter.spectral.bands import AUTO, NESTED

TEMPLATE = Path(__file__).with_name("card_template.md")
PICTURE = "spectrum.png"
RATIOS = (1, 2, 4, 8, 16)
# What must be the same for results to be of a model.
MEASURED_OF = ("sha256", "band", "prompt", "form")
# The manifest's entries that the template has as they are.
AS_IT_IS = (
    "band",
    "calibration",
    "dtype",
    "k",
    "max_seq_length",
    "revision",
    "sha256",
    "source",
    "tensor",
    "thin",
    "versions",
)


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells that the pipeline doesn't know.

    Attributes:
        base_model: The language model's hub id, where the source is a file of it.
        license: The hub's name of the licence, where the source doesn't say.
        license_name: The licence's name, if ``license`` is ``other``.
        license_link: Where its text is, if ``license`` is ``other``.
        results: Measured scores, as ``st-embfilter evaluate`` writes them. They are left out
            of a card of another matrix, prompt, band or form than they were measured with.
    """

    base_model: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    results: dict[str, Any] | None = None


def model_card(manifest: Manifest, licence: Licence, facts: CardFacts) -> str:
    """The card of an artifact, with front matter, as Markdown."""
    base_model = facts.base_model or (manifest.source if manifest.revision else None)
    name = f"{(base_model or manifest.source).rpartition('/')[2]}, EmbedFilter"
    width, k = manifest.width, manifest.k
    results = facts.results if _measured(manifest, facts.results or {}) else None
    entries = list(_index_entries(results, k)) if results else []
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=[
            "sentence-transformers",
            "feature-extraction",
            "embfilter",
            *(["mteb"] if results else []),
        ],
        base_model=base_model,
        base_model_relation=_relation(manifest) if base_model else None,
        license=facts.license or licence.id,
        license_name=facts.license_name or licence.name,
        license_link=facts.license_link or licence.link,
        model_name=name if entries else None,
        eval_results=entries or None,
    )
    smaller = [(f"{ratio}", width // ratio) for ratio in RATIOS if 0 < width // ratio < k]
    sizes = [(f"{width / k:.3g}", k), *smaller]
    echo, exact = Prompts(manifest.prompt).echo, manifest.form == "exact"
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        picture=PICTURE,
        repository=REPOSITORY,
        base=f"[{base_model}](https://huggingface.co/{base_model})"
        if base_model
        else f"**{manifest.source}**",
        width=width,
        nested=manifest.band in NESTED,
        sizes=sizes,
        results=results,
        columns=[
            (ratio, size)
            for ratio, size in [("1", width), *(sizes if k < width else smaller)]
            if results and any(str(size) in task["scores"] for task in results["tasks"])
        ],
        exact=exact,
        trust=", trust_remote_code=True" if exact else "",
        # Neither Text Embeddings Inference nor vLLM has Echo's pooling, or runs remote code.
        served=not (echo or exact or manifest.thin),
        pooled=_pooled(echo, exact),
        limit_of=_limit_of(echo, exact),
        shape=" × ".join(f"{extent:,}" for extent in manifest.shape),
        prompt=_in_table(manifest.prompt),
        prompts={name: _in_table(template) for name, template in manifest.prompts.items()},
        command=_build_command(manifest),
        computed_in=manifest.probes.dtype,
        **{name: getattr(manifest, name) for name in AS_IT_IS},
        license=data.license_name or data.license,
    )
    return str(card)


def _relation(manifest: Manifest) -> str:
    """The hub's word for what the artifact is to its base model."""
    return "adapter" if manifest.thin else "finetune"


def _measured(manifest: Manifest, results: dict[str, Any]) -> bool:
    """Whether results were measured of this very model, up to its number of dimensions."""
    keys = (*MEASURED_OF, "calibration")
    return all(results.get(key) == getattr(manifest, key) for key in keys)


def _index_entries(results: dict[str, Any], k: int) -> Any:
    """Results as model-index metadata, for the tasks that are mteb's own, at k dimensions."""
    for task in results["tasks"]:
        if task["dataset"] and str(k) in task["scores"]:
            yield EvalResult(
                task_type=task["type"],
                dataset_type=task["dataset"],
                dataset_name=f"MTEB {task['name']}",
                dataset_config="default",
                dataset_split="test",
                metric_type=task["metric"],
                metric_value=round(task["scores"][str(k)], 3),
            )


def _pooled(echo: bool, exact: bool) -> str:
    """What is pooled."""
    if not echo:
        return "last token"
    if exact:
        return "mean over the second copy of the text and EOS"
    return "mean over all tokens, weighted by position"


def _limit_of(echo: bool, exact: bool) -> str:
    """What the longest input is the length of."""
    if not echo:
        return "prompt included"
    return "of the text" if exact else "prompt included, the text counted once"


def _build_command(manifest: Manifest) -> str:
    """The command line that builds the same again."""
    names = {template: name for name, template in PROMPTS.items()}
    band = manifest.band
    options = {
        "revision": manifest.revision,
        "dims": manifest.k,
        "band": ",".join(map(str, manifest.indices or ())) if band == "indices" else band,
        "seed": manifest.seed if band == "random" else None,
        "calibration": "FILE" if band == AUTO and not _calibrated_on_ours(manifest) else None,
        "prompt": names.get(manifest.prompt, manifest.prompt),
        **{
            f"{name}-prompt": names.get(template, template)
            for name, template in manifest.prompts.items()
            if name in ("query", "document")
        },
        "format": manifest.form,
        "max-seq-length": manifest.limit,
    }
    given = [f"--{key} {shlex.quote(str(value))}" for key, value in options.items() if value]
    thin = ["--thin"] if manifest.thin else []
    return " ".join(
        ["st-embfilter build", shlex.quote(manifest.source), *given, *thin, "--out DIR"]
    )


def _calibrated_on_ours(manifest: Manifest) -> bool:
    """Whether the band auto was calibrated on what `build` takes by itself.

    In older artifacts that was text of the language model's own, under the key ``own``.
    """
    facts = manifest.calibration or {}
    return bool(facts.get("shipped") or facts.get("own"))


def _in_table(template: str) -> str:
    """A template as code in one cell of a Markdown table."""
    for character, written in (("\n", "\\n"), ("|", "\\|"), ("`", "'")):
        template = template.replace(character, written)
    return template
