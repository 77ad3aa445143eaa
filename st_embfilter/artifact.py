"""The artifact: the folder that is published, in one of two forms.

The portable form loads unchanged everywhere: it uses only classes of sentence-transformers itself,
under the names that all releases and the servers know, and configurations that old and new
releases of transformers read alike. The exact form differs in its input module alone, and carries
the code of that one.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import st_embfilter
from st_embfilter._compat import Pooling, Transformer, pooling_modes
from st_embfilter.errors import PipelineError
from st_embfilter.exact_transformer import NAMED_TEMPLATES_KEY, TEMPLATE_KEY, ExactTransformer
from st_embfilter.files import atomic_output
from st_embfilter.filter_module import FilterModule
from st_embfilter.layout import EXACT_CODE, EXACT_MODULES, MODULES, POOLING_KEYS, PROVENANCE_FILE
from st_embfilter.model_card import model_card
from st_embfilter.prompt_tokenizer import bake_template
from st_embfilter.prompts import PLACEHOLDER, PLAIN, Prompts

# A model with another one is unknown to 4 anyway, and 5 would stumble over keys meant for 4.
ROPE_TYPES_OF_TRANSFORMERS_4 = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
# Short and long, ASCII and not, one beyond the usual limit of 512 tokens. None begins or ends
# with a space: releases before 6.0 strip texts.
PROBES = [
    "embedding",
    "The cat sat on the mat, and nobody minded.",
    "Où est la bibliothèque ? 図書館はどこですか。",
    "def area(r):\n    return 3.14159 * r ** 2  # of a circle",
    " ".join(f"Sentence {number} of a text that is too long." for number in range(120)),
]


def save_pretrained(model: SentenceTransformer, path: str | Path) -> Path:
    """Write a pipeline with a FilterModule as an artifact.

    The folder appears whole or not at all, and loads with ``SentenceTransformer(path)`` in
    sentence-transformers 3.4 and newer, without this package and without remote code. A pipeline
    of the exact format is written in the exact form, which needs ``trust_remote_code=True``: it
    carries the code of its input module.

    Args:
        model: A pipeline of Transformer, Pooling and FilterModule, as :func:`build_model` makes.
        path: The output folder, which must not exist.

    Returns:
        ``path``.

    Raises:
        PipelineError: If the pipeline is another, or encodes through a chat template.
        OutputExistsError: If ``path`` exists.
        OutputWriteError: If it can't be written; then nothing is left behind.
    """
    transformer, pooling, filter_module = check_pipeline(model)
    path = Path(path)
    with atomic_output(path, folder=True) as folder:
        transformer.auto_model.save_pretrained(folder)
        config_path = folder / "config.json"
        write_json(config_path, portable_config(json.loads(config_path.read_text())))
        tokenizer = portable_tokenizer(model.tokenizer, transformer.max_seq_length)
        write_tokenizer(folder, tokenizer)
        if isinstance(transformer, ExactTransformer):
            write_json(folder / "modules.json", EXACT_MODULES)
            shutil.copyfile(EXACT_CODE, folder / EXACT_CODE.name)
        else:
            write_json(folder / "modules.json", MODULES)
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": transformer.max_seq_length, "do_lower_case": False},
        )
        write_json(
            folder / "config_sentence_transformers.json",
            {
                "prompts": model.prompts,
                "default_prompt_name": model.default_prompt_name,
                "similarity_fn_name": "cosine",
            },
        )
        (folder / "1_Pooling").mkdir()
        write_json(folder / "1_Pooling" / "config.json", pooling_config(pooling))
        (folder / "2_Dense").mkdir()
        write_json(folder / "2_Dense" / "config.json", filter_module.get_config_dict())
        weight = filter_module.linear.weight.detach().float().cpu().contiguous()
        save_file(
            {"linear.weight": weight},
            folder / "2_Dense" / "model.safetensors",
            metadata={"format": "pt"},
        )
        manifest = make_manifest(model, filter_module, tokenizer)
        write_json(folder / PROVENANCE_FILE, manifest)
        (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
    return path


def check_pipeline(model: SentenceTransformer) -> tuple[Transformer, Pooling, FilterModule]:
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


def portable_config(config: dict[str, Any]) -> dict[str, Any]:
    """A backbone's ``config.json`` that transformers 4 and 5 read alike.

    5 writes ``rope_parameters`` and ``dtype``. 4 knows neither: it would take 10,000 for the
    rotary base, in silence.
    """
    config = {key: value for key, value in config.items() if not key.endswith("name_or_path")}
    dtype = config.get("dtype", config.get("torch_dtype"))
    if dtype is not None:
        config |= {"dtype": dtype, "torch_dtype": dtype}
    rope = config.get("rope_parameters")
    if not rope:
        return config
    if "sliding_attention" in rope:
        # Gemma 3: one base for layers that see everything, another for those with a window.
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope.get("rope_type", "default") not in ROPE_TYPES_OF_TRANSFORMERS_4:
        return config
    moved = {"rope_theta", "partial_rotary_factor"}
    config |= {key: rope[key] for key in moved if key in rope}
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"] = rope["rope_theta"]
        config["rotary_pct"] = rope.get("partial_rotary_factor", 1.0)
    scaling = {key: value for key, value in rope.items() if key not in moved}
    config["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    return config


def portable_tokenizer(
    tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> PreTrainedTokenizerFast:
    """The tokenizer as it is, if a template was built into it, else with the empty template."""
    if TEMPLATE_KEY in tokenizer.init_kwargs:
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        return tokenizer
    return bake_template(tokenizer, PLACEHOLDER, max_length or tokenizer.model_max_length)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write ``tokenizer.json`` and a configuration that transformers 4 and 5 read alike."""
    backend = tokenizer.backend_tokenizer
    # transformers leaves on the backend what the last call asked for.
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / "tokenizer.json"))
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": tokenizer.model_max_length,
            "padding_side": "right",
            "truncation_side": "right",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            **{
                key: tokenizer.init_kwargs[key]
                for key in (TEMPLATE_KEY, NAMED_TEMPLATES_KEY)
                if key in tokenizer.init_kwargs
            },
            **{name: str(token) for name in names if (token := getattr(tokenizer, name))},
        },
    )


def pooling_config(pooling: Pooling) -> dict[str, Any]:
    """A Pooling's configuration with the keys that all releases read."""
    (mode,) = pooling_modes(pooling)
    return {
        "word_embedding_dimension": pooling.get_config_dict().get(
            "embedding_dimension", pooling.get_config_dict().get("word_embedding_dimension")
        ),
        **{key: name == mode for name, key in POOLING_KEYS.items()},
        "include_prompt": pooling.include_prompt,
    }


def make_manifest(
    model: SentenceTransformer, filter_module: FilterModule, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """What ``embfilter.json`` holds: provenance, and probe texts with their embeddings."""
    prompts = templates(model, tokenizer)
    return {
        "format": 1,
        "form": "exact" if isinstance(model[0], ExactTransformer) else "portable",
        **filter_module.provenance,
        "k": filter_module.out_features,
        "prompt": prompts.plain,
        "prompts": prompts.named,
        "max_seq_length": model.max_seq_length,
        "versions": {
            "st_embfilter": st_embfilter.__version__,
            "sentence_transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
        "probes": {
            "dtype": str(model[0].auto_model.dtype).removeprefix("torch."),
            "texts": PROBES,
            "embeddings": encode_probes(model, PROBES).tolist(),
        },
    }


def templates(model: SentenceTransformer, tokenizer: PreTrainedTokenizerFast) -> Prompts:
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


def encode_probes(model: SentenceTransformer, texts: list[str]) -> Tensor:
    """The texts' embeddings, ``(len(texts), k)`` float32."""
    embeddings = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    return embeddings.float().cpu()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON object or list, one entry a line, as UTF-8."""
    if isinstance(content, dict):
        lines = [f"{dump(key)}: {dump(value)}" for key, value in content.items()]
        text = "{\n  " + ",\n  ".join(lines) + "\n}\n"
    else:
        text = "[\n  " + ",\n  ".join(dump(entry) for entry in content) + "\n]\n"
    path.write_text(text, encoding="utf-8")


def dump(value: Any) -> str:
    """One JSON value on one line."""
    return json.dumps(value, ensure_ascii=False)
