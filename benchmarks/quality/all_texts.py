"""The texts of all test sets, one a line, to fit baselines on.

    python benchmarks/quality/all_texts.py DATA OUT

DATA is a folder as `st-embfilter evaluate --data` reads it, OUT the file to be written. A text with
a line break is left out.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

from data_sets import all_texts


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    texts = sorted(text for text in all_texts(arguments.data) if is_line(text))
    arguments.out.write_text("\n".join(texts) + "\n", encoding="utf-8")
    print(f"{len(texts):,} texts in {arguments.out}")


def is_line(text: str) -> bool:
    """Whether a text can stand on a line of its own."""
    return bool(text.strip()) and "\n" not in text and "\r" not in text


if __name__ == "__main__":
    main()
