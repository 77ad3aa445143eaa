"""The filter's birth: the spectrum of W_U from a file, against torch.linalg.svd.

    python benchmarks/speed/spectrum.py

For matrices of the sizes of Qwen2.5-0.5B's and Llama-3.2-1B's W_U, stored in float32 and bfloat16:

* time of ``compute_spectrum`` (reading, SHA-256, products, eigenvectors) against that of
  ``torch.linalg.svd(W, full_matrices=False)`` of the float32 matrix in memory, in turn;
* rate of all but the eigenvectors, against NumPy's symmetric product of one large block in memory
  (only the multiplications that symmetry leaves are counted);
* peak memory on top of the imports, in a fresh process, against the float32 matrix;
* error of the projector on the bands of τ = 2, 4 and 8 (the sine of the largest angle) against a
  float64 SVD (QR, then SVD of R), beside the error of the float32 SVD.

The matrices are made: a mean row, and random rows whose directions decay by one order of magnitude,
rotated. Linux only (/proc). Takes ten minutes on two cores, and 4 GB of memory.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import torch
from machine import MB, describe_machine, status
from made_matrix import RATIOS, make_matrix, projector_errors, save
from torch import Tensor

from st_embfilter.checkpoint.unembedding import Unembedding, compute_spectrum
from st_embfilter.spectral.spectrum import eigh_descending

SHAPES = ((151_936, 896), (128_256, 2_048))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(task: object) -> float:
    start = time.perf_counter()
    task()  # type: ignore[operator]
    return time.perf_counter() - start


def peak_rate(w: Tensor) -> float:
    """Multiply-adds a second of the symmetric product, the best of some blocks."""
    rows = w[:16_384].numpy()
    best = min(seconds(lambda: rows.T @ rows) for _ in range(5))
    return rows.shape[0] * rows.shape[1] ** 2 / 2 / best


def smallest_gap(values: Tensor) -> float:
    """The smallest gap at the ends of the bands, relative to the singular values there."""
    width, gaps = len(values), []
    for ratio in RATIOS:
        start = (width - width // ratio) // 2
        for i in (start, start + width // ratio):
            gaps.append(float((values[i - 1] - values[i]) / values[i]))
    return min(gaps)


def measure_memory(folder: Path) -> float:
    unembedding = Unembedding.from_pretrained(folder)
    before = status("VmRSS")
    compute_spectrum(unembedding)
    return status("VmHWM") - before


def memory_afresh(folder: Path) -> float:
    command = [sys.executable, __file__, "--memory", str(folder)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def compare(height: int, width: int, rounds: int) -> None:
    w = make_matrix(height, width)
    rate = peak_rate(w)
    with tempfile.TemporaryDirectory() as name:
        folders = {dtype: Path(name, dtype) for dtype in DTYPES}
        for dtype, folder in folders.items():
            save(w.to(DTYPES[dtype]), folder)
        svd_times, times = [], {dtype: [] for dtype in DTYPES}
        for _ in range(rounds):
            svd_times.append(seconds(lambda: torch.linalg.svd(w, full_matrices=False)))
            for dtype, folder in folders.items():
                unembedding = Unembedding.from_pretrained(folder)
                times[dtype].append(seconds(lambda u=unembedding: compute_spectrum(u)))
        memory = {dtype: memory_afresh(folder) for dtype, folder in folders.items()}
        spectra = {
            dtype: compute_spectrum(Unembedding.from_pretrained(folder))
            for dtype, folder in folders.items()
        }
    gram = w[:4096].double().numpy()
    gram = gram.T @ gram
    eigen = min(seconds(lambda: eigh_descending(gram.copy())) for _ in range(2))
    float32_matrix = height * width * 4 / MB
    for dtype, spectrum in spectra.items():
        stored = w.to(DTYPES[dtype])
        r = torch.linalg.qr(stored.double(), mode="r")[1]
        exact = torch.linalg.svd(r)
        float32 = torch.linalg.svd(stored.float(), full_matrices=False)[2]
        best, svd = min(times[dtype]), min(svd_times)
        achieved = height * width**2 / 2 / (best - eigen)
        ours = projector_errors(exact.Vh, spectrum.right_singular_vectors)
        theirs = projector_errors(exact.Vh, float32)
        cells = [
            f"{height:,} × {width:,}",
            dtype,
            f"{svd:.1f}",
            f"{best:.2f}",
            f"**{svd / best:.1f}**",
            f"{2e-9 * achieved:.0f} of {2e-9 * rate:.0f} ({achieved / rate:.0%})",
            f"{memory[dtype]:.0f} of {float32_matrix:.0f} ({memory[dtype] / float32_matrix:.0%})",
            f"{max(ours):.0e}",
            f"{max(theirs):.0e}",
            f"{smallest_gap(exact.S):.0e}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(measure_memory(arguments.memory))
        return
    print(f"{describe_machine()}\n")
    print(
        "| W_U | stored as | SVD, s | ours, s | ratio | GFLOP/s of the peak | memory, MB, of the "
        "matrix | projector error | of the float32 SVD | smallest relative gap |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for shape in SHAPES:
        compare(*shape, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
