"""For what share of texts the portable form has the very tokens of the exact form.

    python benchmarks/quality/seam.py MODEL [--data DIR] [--prompt prompteol]

The portable form tokenizes the prompt apart from the text, so where a text ends in punctuation that
merges with the closing quotation mark, it has two tokens and the exact form one.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

from data_sets import STS_TASKS, read_tasks, unique_texts
from machine import describe_machine

from st_embfilter._compat import Transformer
from st_embfilter.checkpoint.backbone import load_transformer
from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.pipeline.prompt_tokenizer import bake_template
from st_embfilter.pipeline.prompts import PLACEHOLDER, resolve_template


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, GGUF file or hub id of a causal language model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--prompt", default="prompteol")
    arguments = parser.parse_args()

    template = resolve_template(arguments.prompt)
    _, whole = load_transformer(find_checkpoint(arguments.model), Transformer, "auto")
    portable = bake_template(whole, template, 10**6)
    print(f"{describe_machine()}\nprompt: {arguments.prompt}\n")
    print("| task | texts | equal tokens | most frequent last characters of the others |")
    print("|---|---|---|---|")
    for task in STS_TASKS:
        texts = unique_texts(read_tasks(arguments.data, [task]))
        exact = whole([template.replace(PLACEHOLDER, text) for text in texts])["input_ids"]
        pairs = zip(texts, portable(texts)["input_ids"], exact, strict=True)
        others = [text for text, ours, theirs in pairs if ours != theirs]
        share = 1 - len(others) / len(texts)
        ends = Counter(text[-1:] for text in others).most_common(3)
        listed = ", ".join(f"`{end}` {count:,}" for end, count in ends)
        print(f"| {task} | {len(texts):,} | {share:.0%} | {listed} |")


if __name__ == "__main__":
    main()
