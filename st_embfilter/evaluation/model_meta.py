"""What mteb and its leaderboard want to know of a model."""

import json
from typing import Any, get_args

from huggingface_hub import ModelCard
from mteb.cache import ResultCache
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.results import TaskResult
from mteb.types import Licenses

from st_embfilter.artifact.card import RATIOS
from st_embfilter.evaluation.evaluated import Evaluated

PAPER_CITATION = """@misc{wu2026unembedding,
  title = {Your UnEmbedding Matrix is Secretly a Feature Lens for Text Embeddings},
  author = {Wu, Songhao and Chen, Zhongxin and Liu, Yuxuan and Cui, Heng and Li, Cong and Yan, Rui},
  year = {2026},
  eprint = {2606.07502},
  archivePrefix = {arXiv},
}"""


def make_meta(evaluated: Evaluated) -> ModelMeta:
    """The ModelMeta of a model, from its files.

    An artifact of this package was trained on no text (``training_datasets`` is empty), and gives
    every smaller τ by truncation (``embed_dim`` lists those of the paper). Of any other model the
    first is not known, and the second not the case.
    """
    model, manifest, card = evaluated.model, evaluated.manifest, _front_matter(evaluated)
    licence = card.get("license")
    parameters = list(model.parameters())
    backbone: Any = model[0]
    facts: dict[str, Any] = {
        "loader": SentenceTransformerEncoderWrapper,
        "name": evaluated.name,
        "revision": evaluated.revision,
        "n_parameters": sum(p.numel() for p in parameters),
        "memory_usage_mb": round(sum(p.numel() * p.element_size() for p in parameters) / 2**20),
        "max_tokens": model.max_seq_length,
        "framework": ["Sentence Transformers", "PyTorch", "safetensors"],
        "similarity_fn_name": ScoringFunction(model.similarity_fn_name or "cosine"),
        "open_weights": True,
        "use_instructions": any(model.prompts.values()),
        "license": licence if licence in get_args(Licenses) else card.get("license_link"),
        "adapted_from": base if isinstance(base := card.get("base_model"), str) else None,
    }
    if manifest:
        sizes = {manifest.k, *(manifest.width // ratio for ratio in RATIOS)}
        facts |= {
            "n_embedding_parameters": backbone.auto_model.get_input_embeddings().weight.numel(),
            "embed_dim": sorted((k for k in sizes if 0 < k <= manifest.k), reverse=True),
            "training_datasets": set(),
            "citation": PAPER_CITATION,
        }
    # Built anew, not copied, so that mteb checks every entry.
    return ModelMeta(**(dict(ModelMeta.create_empty()) | facts))


def save_result(cache: ResultCache, result: TaskResult, meta: ModelMeta) -> None:
    """Have mteb write a result, with a ``model_meta.json`` that it reads without a warning."""
    cache.save_to_cache(result, meta)
    path = cache.get_task_result_path(result.task_name, meta).with_name("model_meta.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    # mteb writes it, and says that it is deprecated when it reads it.
    content.pop("is_cross_encoder", None)
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def _front_matter(evaluated: Evaluated) -> dict[str, Any]:
    card = evaluated.folder / "README.md"
    return dict(ModelCard.load(card).data.to_dict()) if card.is_file() else {}
