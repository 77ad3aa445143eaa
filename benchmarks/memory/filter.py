"""What taking the filter costs: bytes read and peak memory, at the size of Qwen2.5-0.5B's W_U.

    python benchmarks/memory/filter.py

Makes a checkpoint with an unembedding matrix of 151,936 × 896 in bfloat16 (272 MB) and a backbone
many times that size. The backbone is a hole in a sparse file: it takes no disk, and whoever reads
it is seen to. Linux only (/proc).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import torch
from machine import MB, describe_machine, status

HEIGHT, WIDTH = 151_936, 896
BACKBONE_ROWS = 4_000_000  # × 896 × 2 bytes = 7.2 GB


def make_checkpoint(folder: Path) -> None:
    """Write a Qwen2-like checkpoint whose backbone is a hole."""
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": WIDTH,
        "vocab_size": HEIGHT,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    backbone, head = BACKBONE_ROWS * WIDTH * 2, HEIGHT * WIDTH * 2
    header = {
        "model.layers.0.mlp.up_proj.weight": {
            "dtype": "BF16",
            "shape": [BACKBONE_ROWS, WIDTH],
            "data_offsets": [0, backbone],
        },
        "lm_head.weight": {
            "dtype": "BF16",
            "shape": [HEIGHT, WIDTH],
            "data_offsets": [backbone, backbone + head],
        },
    }
    encoded = json.dumps(header).encode()
    generator = torch.Generator().manual_seed(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.seek(backbone, 1)
        for _ in range(HEIGHT // 1024 + 1):
            rows = torch.randn(1024, WIDTH, generator=generator).bfloat16()
            left = 8 + len(encoded) + backbone + head - file.tell()
            file.write(rows.view(torch.uint8).numpy().tobytes()[:left])


def measure(folder: Path) -> dict[str, float]:
    """Take the filter in this process and report, in MB."""
    from st_embfilter import FilterModule

    def bytes_read() -> float:
        return int(Path("/proc/self/io").read_text().split()[1]) / MB

    before, read_before = status("VmRSS"), bytes_read()
    module = FilterModule.from_pretrained(folder, ratio=2)
    assert module.out_features == WIDTH // 2
    return {
        "checkpoint": (folder / "model.safetensors").stat().st_size / MB,
        "W_U": HEIGHT * WIDTH * 2 / MB,
        "W_U in float32": HEIGHT * WIDTH * 4 / MB,
        "bytes read": bytes_read() - read_before,
        "memory of the imports alone": before,
        "peak memory on top of that": status("VmHWM") - before,
        "peak memory in all": status("VmHWM"),
    }


def measure_afresh(document: str, script: str, measure: Callable[[Path], dict[str, float]]) -> None:
    """Make the checkpoint, measure in a fresh process, print a table or JSON.

    Args:
        document: The script's.
        script: Its path, to run it again.
        measure: What it measures, in MB.
    """
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        child = subprocess.run(
            [sys.executable, script, "--measure", folder],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    if arguments.json:
        print(child.stdout, end="")
        return
    print(f"{describe_machine()}\n\n| | MB |\n|---|---|")
    for name, value in json.loads(child.stdout).items():
        print(f"| {name} | {value:,.0f} |")


if __name__ == "__main__":
    measure_afresh(__doc__, __file__, measure)
