"""Have vLLM embed with every decoder family, and write what it gives to docs/families.md.

    python tests/compat/families.py ENVIRONMENTS [--out docs/families.md] [--only WORD]

A tiny random model of each becomes an artifact, and a process of its own embeds with it. Ends with
code 1 if it gives other embeddings than sentence-transformers, where it isn't known why; that it
refuses a family is no failure.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained
from support.comparing import relative
from support.families import FAMILIES, TEXTS, save_tiny

CLIENT = Path(__file__).parent / "clients" / "vllm_families.py"
TOLERANCE = 1e-4
# Of what vLLM says, where it says no.
SHOWN = 160
HEADING = "## In vLLM\n"
TRANSFORMERS_BACKEND = "vLLM's Transformers backend computes another model, and writes other text"
# Found in its source, or by having it write text with the plain language model, which differs too.
KNOWN = {
    "Apertus": "vLLM holds its activation's parameters in bfloat16",
    "Bloom": "vLLM's GELU is another one",
    "GPT-NeoX, Pythia": TRANSFORMERS_BACKEND,
    "Persimmon": TRANSFORMERS_BACKEND,
}


def save_artifact(family: str, folder: Path) -> tuple[Path, np.ndarray]:
    """An artifact, and what sentence-transformers gives with it."""
    save_tiny(family, folder / "llm", wide=True)
    built = build_model(folder / "llm", band="edge", ratio=2, device="cpu")
    artifact = save_pretrained(built, folder / "artifact")
    return artifact, SentenceTransformer(str(artifact), device="cpu").encode(TEXTS)


def judge(family: str, answer: dict[str, Any], expected: np.ndarray) -> tuple[str, bool]:
    """What there is to say of a family, and whether that is well."""
    if "error" in answer:
        return f"refused: {' '.join(answer['error'].split())[:SHOWN]}".replace("|", "/"), True
    error = relative(np.array(answer["embeddings"]), expected)
    why = KNOWN.get(family) if error > TOLERANCE else None
    return f"{error:.0e}{f': {why}' if why else ''}", error <= TOLERANCE or why is not None


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    """Put the rows into the section's table, in the place of older ones; its text stays."""
    before, heading, after = path.read_text().partition(HEADING)
    assert heading, f"{path} has no section {HEADING.strip()}"
    section, next_heading, rest = after.partition("\n## ")
    lines = section.splitlines()
    text = "\n".join(line for line in lines if not line.startswith("|")).strip()
    old = dict(line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| "))
    said = old | dict(rows)
    table = [("family", "off by"), ("---", "---"), *((f, said[f]) for f in FAMILIES if f in said)]
    shown = "\n".join(f"| {' | '.join(line)} |" for line in table)
    path.write_text(f"{before}{heading}\n{text}\n\n{shown}\n{next_heading}{rest}")


def main() -> None:
    """Run all families."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environments", type=Path)
    parser.add_argument("--out", type=Path, help="the document that holds the table")
    parser.add_argument("--only", default="", help="those whose name holds this")
    arguments = parser.parse_args()
    python = arguments.environments.absolute() / "vllm" / "bin" / "python"
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as work:
        families = [family for family in FAMILIES if arguments.only in family]
        saved = {family: save_artifact(family, Path(work, family)) for family in families}
        artifacts = [artifact for artifact, _ in saved.values()]
        command = [python, CLIENT, json.dumps(TEXTS), *artifacts]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as vllm:
            assert vllm.stdout
            answers = (json.loads(line) for line in vllm.stdout if line.startswith("{"))
            for (family, (_, expected)), answer in zip(saved.items(), answers, strict=True):
                said, well = judge(family, answer, expected)
                rows.append((family, said))
                print(" | ".join(rows[-1]), flush=True)
                if not well:
                    failed.append(family)
    if arguments.out:
        write_table(arguments.out, rows)
    print(f"{len(rows)} families, given other embeddings: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
