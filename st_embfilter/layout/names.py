"""What the files of an artifact are called and must say, in its two forms."""

import json
from pathlib import Path

# Provenance, and probe texts with their embeddings.
PROVENANCE_FILE = "embfilter.json"
# Stands in the model card until it is published.
REPOSITORY = "ORG/NAME"
# Exactly these strings: Text Embeddings Inference and vLLM compare them literally, and the paths
# that sentence-transformers 6 writes make them leave out the filter in silence.
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]
EXACT_CODE = Path(__file__).with_name("exact_transformer.py")
# The exact form's: the first module is of the repository's own code.
EXACT_MODULES = [
    {**MODULES[0], "type": f"{EXACT_CODE.stem}.ExactTransformer"},
    *MODULES[1:],
]
# transformers runs code that these name, from this or another repository.
CONFIGS_THAT_NAME_CODE = ("config", "tokenizer_config")
POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def holds_only_our_code(folder: Path) -> bool:
    """Whether a folder is an artifact in the exact form, and all code in it is this package's own.

    ``trust_remote_code=True`` then runs nothing that isn't installed here anyway.
    """
    try:
        configs = [json.loads((folder / f"{n}.json").read_text()) for n in CONFIGS_THAT_NAME_CODE]
        code = {file.name: file.read_bytes() for file in folder.rglob("*.py")}
        return (
            json.loads((folder / "modules.json").read_text()) == EXACT_MODULES
            and code == {EXACT_CODE.name: EXACT_CODE.read_bytes()}
            and not any("auto_map" in config for config in configs)
        )
    except (OSError, ValueError, TypeError):
        return False


def names_other_code(folder: Path) -> bool:
    """Whether a folder's ``modules.json`` names classes that aren't sentence-transformers' own.

    Releases before 6.0 run the code of a local folder without asking.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return False
    types = [str(module.get("type")) for module in json.loads(path.read_text())]
    return not all(name.startswith("sentence_transformers.") for name in types)
