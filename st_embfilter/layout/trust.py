"""Whose code is in a folder: only this package's own is run."""

from pathlib import Path

from st_embfilter.files import read_json
from st_embfilter.layout.names import EXACT_CODE, EXACT_MODULES, MODULES_FILE

# transformers runs code that these name, from this or another repository.
CONFIGS_THAT_NAME_CODE = ("config", "tokenizer_config")


def holds_only_our_code(folder: Path) -> bool:
    """Whether a folder is an artifact in the exact form, and all code in it is this package's own.

    ``trust_remote_code=True`` then runs nothing that isn't installed here anyway.
    """
    try:
        configs = [read_json(folder / f"{name}.json") for name in CONFIGS_THAT_NAME_CODE]
        code = {file.name: file.read_bytes() for file in folder.rglob("*.py")}
        return (
            read_json(folder / MODULES_FILE) == EXACT_MODULES
            and code == {EXACT_CODE.name: EXACT_CODE.read_bytes()}
            and not any("auto_map" in config for config in configs)
        )
    except (OSError, ValueError, TypeError):
        return False


def names_other_code(folder: Path) -> bool:
    """Whether a folder's ``modules.json`` names classes that aren't sentence-transformers' own.

    Releases before 6.0 run the code of a local folder without asking.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return False
    types = [str(module.get("type")) for module in read_json(path)]
    return not all(name.startswith("sentence_transformers.") for name in types)
