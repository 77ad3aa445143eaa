"""Filtering stored vectors against the slower of the disk and the matrix product.

    python benchmarks/speed/transform.py [--rows 2000000] [--rounds 3] [--warm] [--folder DIR]

Makes a .npy file of random float32 vectors (4.6 GB), and times in turn, in this process:
- copy: reads the same bytes, in a thread of its own and giving up the page cache behind it, as
  `transform` does, and writes as many as the output has, with fsync at the end;
- product: the matrix product alone, block by block, on as many rows in memory;
- transform: `transform_file` from file to file, fsync'd.
The page cache is emptied of the input before each (or, with --warm, holds it). Then the peak memory
of the command in a fresh process, and a run that is killed half-way and resumed, compared byte by
byte. Linux only.
"""

import argparse
import filecmp
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
from machine import describe_machine, status
from safetensors.numpy import save_file

from st_embfilter.row_blocks import ahead
from st_embfilter.vectors.transform import transform_file
from st_embfilter.vectors.vector_filter import VectorFilter

WIDTH, KEPT = 576, 288
BLOCK_ROWS = 8192  # where the product alone, on both cores, is fastest
COPIED_BYTES = 4_000_000


def make_artifact(folder: Path) -> Path:
    """The files of an artifact's filter, with random orthonormal rows."""
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0][:KEPT].astype(np.float32)
    (folder / "2_Dense").mkdir(parents=True)
    save_file({"linear.weight": np.ascontiguousarray(rows)}, folder / "2_Dense/model.safetensors")
    config = {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}
    (folder / "2_Dense/config.json").write_text(json.dumps(config))
    (folder / "embfilter.json").write_text(json.dumps({"band": "edge"}))
    return folder


def make_vectors(path: Path, rows: int) -> None:
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - start)
            file.write(rng.standard_normal((count, WIDTH), dtype=np.float32).data)
        file.flush()
        os.fsync(file.fileno())


def prepare_cache(path: Path, warm: bool) -> None:
    """Have a file in the page cache, or not."""
    with path.open("rb") as file:
        if warm:
            while file.read(1 << 24):
                pass
        else:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(source: Path, out: Path) -> None:
    """Read all, write the share that the output has."""

    def blocks() -> Iterator[np.ndarray]:
        buffers = [np.empty(COPIED_BYTES, np.uint8) for _ in range(6)]
        with source.open("rb", buffering=0) as file:
            number = 0
            while count := file.readinto(buffers[number % 6]):
                os.posix_fadvise(file.fileno(), 0, file.tell() - count, os.POSIX_FADV_DONTNEED)
                yield buffers[number % 6][:count]
                number += 1

    with out.open("wb") as file:
        for block in ahead(blocks(), 4):
            file.write(block[: len(block) * KEPT // WIDTH].data)
        file.flush()
        os.fsync(file.fileno())


def product(rows: int, vector_filter: VectorFilter) -> None:
    block = np.random.default_rng(2).standard_normal((BLOCK_ROWS, WIDTH), dtype=np.float32)
    for start in range(0, rows, BLOCK_ROWS):
        vector_filter.apply(block[: rows - start])


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def compare(source: Path, artifact: Path, rows: int, rounds: int, warm: bool) -> None:
    """Time all three in turn, and print a table."""
    vector_filter = VectorFilter.from_artifact(artifact)
    out = source.with_name("out.npy")
    runs: dict[str, Callable[[], object]] = {
        "copy": lambda: copy(source, out),
        "product": lambda: product(rows, vector_filter),
        "transform": lambda: transform_file(source, vector_filter, out),
    }
    names = list(runs)
    print("Seconds, and in brackets those of all cores together.\n")
    print("| round | copy | product | transform | slower of both / transform |")
    print("|---|---:|---:|---:|---:|")
    shares = []
    for number in range(rounds):
        took, used = {}, {}
        # Who is first changes: a machine that slows down favours none.
        for name in names[number % 3 :] + names[: number % 3]:
            out.unlink(missing_ok=True)
            prepare_cache(source, warm)
            os.sync()
            before = processor_seconds()
            took[name] = seconds(runs[name])
            used[name] = processor_seconds() - before
        shares.append(max(took["copy"], took["product"]) / took["transform"])
        cells = " | ".join(f"{took[name]:.2f} ({used[name]:.1f})" for name in names)
        print(f"| {number + 1} | {cells} | {shares[-1]:.2f} |", flush=True)
    print(f"\nmedian share of the slower one's speed: {np.median(shares):.2f}")
    out.unlink(missing_ok=True)


def measure(source: Path, artifact: Path) -> None:
    """Print the peak memory above the imports, in MB."""
    before = status("VmHWM")
    transform_file(source, artifact, source.with_name("whole.npy"))
    print(f"imports {before:.0f} MB, peak above them {status('VmHWM') - before:.0f} MB")


def kill_and_resume(source: Path, artifact: Path, rows: int) -> None:
    """Kill the command half-way, give it again, and compare with the whole run's output."""
    whole, out = source.with_name("whole.npy"), source.with_name("resumed.npy")
    state = out.with_name(f".{out.name}.progress")
    command = [sys.executable, "-m", "st_embfilter", "transform", str(source)]
    command += ["--filter", str(artifact), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (state.is_file() and json.loads(state.read_text())["read"] > rows // 2):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = json.loads(state.read_text())["read"]
    assert not out.exists()
    again = seconds(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))
    equal = filecmp.cmp(whole, out, shallow=False)
    with out.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(
        f"killed at {done:,} of {rows:,} rows, resumed in {again:.1f} s with imports, byte-equal "
        f"to the whole run: {equal} (SHA-256 {digest[:16]}…)"
    )
    assert equal


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", action="store_true", help="with the input in the page cache")
    parser.add_argument("--folder", type=Path, help="where to make the files: on a real disk")
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        artifact, source = make_artifact(folder / "artifact"), folder / "raw.npy"
        make_vectors(source, arguments.rows)
        state = "in the page cache" if arguments.warm else "not in the page cache"
        print(f"{describe_machine()}, numpy {np.__version__}")
        print(f"{arguments.rows:,} × {WIDTH} float32 to {KEPT} dimensions, the input {state}\n")
        compare(source, artifact, arguments.rows, arguments.rounds, arguments.warm)
        paths = [str(source), str(artifact)]
        subprocess.run([sys.executable, __file__, "--measure", *paths], check=True)
        kill_and_resume(source, artifact, arguments.rows)


if __name__ == "__main__":
    main()
