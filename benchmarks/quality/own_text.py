"""The text that a language model writes for `--band auto`, one a line, to fit baselines on.

python benchmarks/quality/own_text.py MODEL OUT
"""

import argparse
from pathlib import Path

from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.pipeline.automatic import calibration_texts


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    source = find_checkpoint(arguments.model, None)
    texts, _ = calibration_texts(source, None, "auto", None, progress=True)
    arguments.out.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    print(f"{len(texts):,} texts in {arguments.out}")


if __name__ == "__main__":
    main()
