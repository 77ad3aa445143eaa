"""Everything that a GPU does here, measured: `make gpu`.

    python benchmarks/gpu/run.py [--out gpu-output] [--small]

It needs no language model and no network: a random one of Qwen2.5-0.5B's shape is made, and the
heads of it and of Llama-3.1-8B. Tables go to standard output and to OUT/tables.md, the figures to
OUT/figures.json; where a table can't be had, the others are. Without a GPU it says so, and ends.
--small runs all of it on the processor, in sizes that tell nothing.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import torch
from machine import describe_machine
from peaks import bandwidth, matrix_rate
from spectra import compare_spectrum
from tqdm import tqdm

from encoding import (
    compare_encoding,
    compare_to_processor,
    compiled,
    save_artifact,
    transform,
)

QWEN_05B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4_864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2_048,
    "tie_word_embeddings": True,
}
SMALL = {
    **QWEN_05B,
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA_8B_HEAD = (128_256, 4_096)
# Words, which are tokens here: with the prompt 26 of them on average, and 512.
SHORT, LONG = range(8, 23), range(501, 502)
FAILED = "failed"
Table = list[dict[str, Any]]


def steps(small: bool, folder: Path) -> dict[str, Callable[[], Table]]:
    """What makes each table, by the table's title."""
    device = "cpu" if small else "cuda"
    square = 256 if small else 8_192
    heads = [(600, 64)] if small else [(151_936, 896), LLAMA_8B_HEAD]
    short, long = (8, 3) if small else (2_048, 512)
    texts = ((SHORT, short), (LONG, long))
    artifact = str(folder / "artifact")

    def at_best() -> Table:
        dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        rates = {f"{dtype}, TFLOP/s": matrix_rate(dtype, device, square) / 1e12 for dtype in dtypes}
        return [{**rates, "copying, GB/s": bandwidth(device, 1 << (20 if small else 32)) / 1e9}]

    def encoding() -> Table:
        return [
            line
            for dtype in (torch.bfloat16, torch.float16)
            for words, count in texts
            for line in compare_encoding(artifact, dtype, words, count, device, square)
        ]

    def embeddings() -> Table:
        save_artifact(SMALL if small else QWEN_05B, folder, device)
        return compare_to_processor(artifact, device)

    return {
        "The card at best": at_best,
        "The spectrum of W_U": lambda: [
            compare_spectrum(*head, device, square // 2) for head in heads
        ],
        "Embeddings against the processor's": embeddings,
        "Encoding": encoding,
        "Encoding, compiled": lambda: [
            compiled(artifact, torch.bfloat16, *each, device) for each in texts
        ],
        "Stored vectors": lambda: [transform(artifact, 1_000 if small else 4_000_000, device)],
    }


def measure(small: bool) -> dict[str, Table]:
    """All tables, by their titles; of one that failed, why."""
    # Products in float32 are to be of float32, as on the processor.
    torch.backends.cuda.matmul.allow_tf32 = False
    tables: dict[str, Table] = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, step in tqdm(steps(small, Path(folder)).items(), desc="Measuring"):
            try:
                tables[title] = step()
            except Exception as error:
                traceback.print_exc()
                tables[title] = [{FAILED: f"{type(error).__name__}: {error}".splitlines()[0]}]
    return tables


def markdown(table: Table) -> str:
    """A table's lines."""
    columns = list(table[0])
    rows = [[_shown(line[column]) for column in columns] for line in table]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-output"))
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        print(f"no GPU here that PyTorch {torch.__version__} can use: nothing was measured")
        return
    card = "the processor, in small" if arguments.small else torch.cuda.get_device_name()
    tables = measure(arguments.small)
    sections = [f"## {title}\n\n{markdown(table)}" for title, table in tables.items()]
    text = "\n\n".join([f"{card}; {describe_machine()}", *sections])
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tables.md").write_text(f"{text}\n", encoding="utf-8")
    figures = {"card": card, "machine": describe_machine(), "tables": tables}
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if any(FAILED in table[0] for table in tables.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
