"""What the files of an artifact are called and must say, in its two forms."""

from pathlib import Path

# Provenance, and probe texts with their embeddings.
PROVENANCE_FILE = "embfilter.json"
MODULES_FILE = "modules.json"
POOLING_CONFIG = "1_Pooling/config.json"
DENSE_CONFIG = "2_Dense/config.json"
DENSE_WEIGHTS = "2_Dense/model.safetensors"
CARD = "README.md"
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
POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
