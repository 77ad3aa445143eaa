"""The artifact: the folder that is published, in one of two forms.

The portable form loads unchanged everywhere: it uses only classes of sentence-transformers itself,
under the names that all releases and the servers know, and configurations that old and new
releases of transformers read alike. The exact form differs in its input module alone, and carries
the code of that one.
"""

import shutil
from pathlib import Path

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast

from st_embfilter._compat import Pooling, Transformer, pooling_modes
from st_embfilter._version import __version__
from st_embfilter.artifact.card import PICTURE, CardFacts, model_card
from st_embfilter.artifact.portable_files import (
    pooling_config,
    portable_tokenizer,
    write_backbone,
    write_json,
    write_tokenizer,
)
from st_embfilter.artifact.spectrum_picture import save_picture
from st_embfilter.artifact.thin import write_adapter
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.licence import Licence
from st_embfilter.checkpoint.source import Source
from st_embfilter.encoding.checks import check_finite
from st_embfilter.encoding.probes import PROBES, encode_probes
from st_embfilter.errors import MisuseError, PipelineError
from st_embfilter.files import atomic_output
from st_embfilter.layout.exact_transformer import (
    NAMED_TEMPLATES_KEY,
    TEMPLATE_KEY,
    ExactTransformer,
)
from st_embfilter.layout.manifest import FORMAT, Manifest, Probes
from st_embfilter.layout.names import (
    CARD,
    DENSE_CONFIG,
    DENSE_WEIGHTS,
    EXACT_CODE,
    EXACT_MODULES,
    MODULES,
    MODULES_FILE,
    POOLING_CONFIG,
    PROVENANCE_FILE,
)
from st_embfilter.pipeline.filter_module import FilterModule
from st_embfilter.pipeline.prompts import PLACEHOLDER, PLAIN, Prompts


def save_pretrained(
    model: SentenceTransformer,
    path: str | Path,
    *,
    thin: bool = False,
    facts: CardFacts | None = None,
) -> Path:
    """Write a pipeline with a FilterModule as an artifact.

    The folder appears whole or not at all, and loads with ``SentenceTransformer(path)`` in
    sentence-transformers 3.4 and newer, without this package and without remote code. A pipeline
    of the exact format is written in the exact form, which needs ``trust_remote_code=True``: it
    carries the code of its input module.

    Args:
        model: A pipeline of Transformer, Pooling and FilterModule, as :func:`build_model` makes.
        path: The output folder, which must not exist.
        thin: Write a reference to the language model on the hub in the place of its weights. The
            folder then needs ``peft`` to load.
        facts: What the model card tells that the pipeline doesn't know.

    Returns:
        ``path``.

    Raises:
        PipelineError: If the pipeline is another, or encodes through a chat template.
        NonFiniteError: If it gives NaN or infinity, as float16 does where activations overflow.
        OutputExistsError: If ``path`` exists.
        OutputWriteError: If it can't be written; then nothing is left behind.
    """
    transformer, pooling, filter_module = _check_pipeline(model)
    if thin and isinstance(transformer, ExactTransformer):
        raise MisuseError("the thin form runs no code: it is portable, not exact")
    path, checkpoint = Path(path), _checkpoint_of(filter_module)
    with atomic_output(path, folder=True) as folder:
        if thin:
            if checkpoint is None:
                raise MisuseError("the thin form refers to a language model on the hub")
            write_adapter(transformer.auto_model, checkpoint, folder)
        else:
            write_backbone(transformer.auto_model, folder, filter_module.provenance["band"])
        tokenizer = portable_tokenizer(model.tokenizer, transformer.max_seq_length)
        write_tokenizer(folder, tokenizer)
        if isinstance(transformer, ExactTransformer):
            write_json(folder / MODULES_FILE, EXACT_MODULES)
            shutil.copyfile(EXACT_CODE, folder / EXACT_CODE.name)
        else:
            write_json(folder / MODULES_FILE, MODULES)
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": transformer.max_seq_length, "do_lower_case": False},
        )
        write_json(
            folder / "config_sentence_transformers.json",
            {
                "prompts": model.prompts,
                "default_prompt_name": model.default_prompt_name,
                "similarity_fn_name": model.similarity_fn_name or "cosine",
            },
        )
        (folder / "1_Pooling").mkdir()
        write_json(folder / POOLING_CONFIG, pooling_config(pooling))
        (folder / "2_Dense").mkdir()
        write_json(folder / DENSE_CONFIG, filter_module.get_config_dict())
        weight = filter_module.linear.weight.detach().float().cpu().contiguous()
        save_file(
            {"linear.weight": weight},
            folder / DENSE_WEIGHTS,
            metadata={"format": "pt"},
        )
        manifest = _make_manifest(model, filter_module, tokenizer, thin)
        write_json(folder / PROVENANCE_FILE, manifest.to_json())
        save_picture(folder / PICTURE, manifest)
        licence = checkpoint.licence if checkpoint else Licence()
        for name, content in licence.files.items():
            (folder / name).write_bytes(content)
        card = model_card(manifest, licence, facts or CardFacts())
        (folder / CARD).write_text(card, encoding="utf-8")
    return path


def _checkpoint_of(filter_module: FilterModule) -> Checkpoint | None:
    """The language model that a filter was taken from, if it is known where to read it again."""
    provenance = filter_module.provenance
    if filter_module.checkpoint or not provenance["revision"]:
        return filter_module.checkpoint
    return Checkpoint(Source(provenance["source"], revision=provenance["revision"]))


def _check_pipeline(model: SentenceTransformer) -> tuple[Transformer, Pooling, FilterModule]:
    """The three modules of a pipeline that the artifact can hold.

    Raises:
        PipelineError: If it can't hold this one.
    """
    match list(model):
        case [Transformer() as transformer, Pooling() as pooling, FilterModule() as filter_module]:
            pass
        case modules:
            found = ", ".join(repr(module).partition("(")[0] for module in modules)
            raise PipelineError(
                f"the portable artifact holds Transformer, Pooling and FilterModule, this pipeline "
                f"is {found}"
            )
    if "message" in getattr(transformer, "modality_config", {}):
        raise PipelineError(
            "this pipeline wraps every text in the tokenizer's chat template, and the artifact "
            "encodes plain text: make the pipeline with st_embfilter.build_model"
        )
    if quantizer := getattr(transformer.auto_model, "hf_quantizer", None):
        raise PipelineError(
            f"the backbone is quantized ({quantizer.quantization_config.quant_method.value}), and "
            f"the artifact would load only where that method's library is installed: build it from "
            f"the original checkpoint. (The pipeline in memory works as it is.)"
        )
    if len(pooling_modes(pooling)) != 1:
        raise PipelineError("the filter needs a pooling of one mode, not several side by side")
    if not filter_module.provenance:
        raise PipelineError(
            "this FilterModule doesn't know where its matrix is from: make it with "
            "FilterModule.from_pretrained or FilterModule.from_spectrum"
        )
    return transformer, pooling, filter_module


def _make_manifest(
    model: SentenceTransformer,
    filter_module: FilterModule,
    tokenizer: PreTrainedTokenizerFast,
    thin: bool,
) -> Manifest:
    """What ``embfilter.json`` holds: provenance, and probe texts with their embeddings."""
    prompts = _templates(model, tokenizer)
    exact = isinstance(model[0], ExactTransformer)
    # What `build` was told: with Echo in the portable form, the prompt comes on top of it.
    counted = len(tokenizer("")["input_ids"]) if prompts.echo and not exact else 0
    embeddings = encode_probes(model, PROBES)
    check_finite(embeddings.numpy(), PROBES)
    return Manifest(
        format=FORMAT,
        form="exact" if exact else "portable",
        thin=thin,
        limit=tokenizer.model_max_length - counted,
        **filter_module.provenance,
        k=filter_module.out_features,
        prompt=prompts.plain,
        prompts=prompts.named,
        max_seq_length=model.max_seq_length,
        versions={
            "st_embfilter": __version__,
            "sentence_transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
        probes=Probes(
            dtype=str(model[0].auto_model.dtype).removeprefix("torch."),
            texts=PROBES,
            embeddings=embeddings.tolist(),
        ),
    )


def _templates(model: SentenceTransformer, tokenizer: PreTrainedTokenizerFast) -> Prompts:
    """A pipeline's templates in full."""
    template = tokenizer.init_kwargs[TEMPLATE_KEY]
    if isinstance(model[0], ExactTransformer):
        return Prompts(template, tokenizer.init_kwargs[NAMED_TEMPLATES_KEY])
    # What sentence-transformers puts in front of the text, inside the tokenizer's template.
    named = {
        name: template.replace(PLACEHOLDER, front + PLACEHOLDER)
        for name, front in model.prompts.items()
        if front
    }
    plain = named.pop(PLAIN, named.get(model.default_prompt_name or "", template))
    return Prompts(plain, named)
