"""Ray: two workers against one, and with one of two killed in the middle.

    python benchmarks/speed/cluster.py MODEL [--texts FILE] [--rows 512] [--part-rows 16]

MODEL is an artifact. The texts are the file's lines, over and over with a number in front, or made
ones. Each worker has one CPU and one thread. A run's time is from its first finished part, when
the model is loaded and Ray is up, to the whole output, over the rows that are then left; the time
of all is told too. All runs are of one corpus, in turn, on a Ray of their own.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine
from made_texts import made_texts

from st_embfilter.cluster.parts import MANIFEST


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--part-rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.parquet")
        texts = make_texts(arguments.texts, arguments.rows)
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), source)
        command = [sys.executable, "-m", "st_embfilter", "ray", "encode", arguments.model, source]
        command += ["--column", "text", "--part-rows", str(arguments.part_rows)]
        print(f"{describe_machine()}\n{len(texts)} texts, parts of {arguments.part_rows}\n")
        print("| round | workers | all (s) | texts per second, once loaded | against one |")
        print("|---|---|---:|---:|---:|")
        for number in range(arguments.rounds):
            # Who is first changes: a machine that slows down favours neither.
            order = (1, 2) if number % 2 == 0 else (2, 1)
            speed = {}
            for workers in order:
                out = Path(folder, f"out-{number}-{workers}")
                took, speed[workers], _ = run(command, out, workers)
                ratio = f"{speed[2] / speed[1]:.2f}" if len(speed) == 2 else ""
                print(f"| {number + 1} | {workers} | {took:.1f} | {speed[workers]:.1f} | {ratio} |")
        whole, out = Path(folder, "out-0-2"), Path(folder, "killed")
        took, _, killed = run(command, out, 2, kill=len(texts) // arguments.part_rows // 3)
        expected, found = read(whole), read(out)
        ids = found.column("id").to_numpy()
        print(f"\nOne of two workers killed (SIGKILL, process {killed}) in {took:.1f} s:\n")
        print(f"- rows in, rows out: {len(texts)}, {len(found)}")
        print(f"- rows more than once: {len(ids) - len(np.unique(ids))}")
        print(f"- files, and leftovers: {len(list(out.glob('*.parquet')))}, {leftovers(out)}")
        print(f"- equal to the undisturbed output, bit for bit: {found.equals(expected)}")


def make_texts(path: Path | None, count: int) -> list[str]:
    """So many different texts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path else made_texts(count)
    return [f"{number} {lines[number % len(lines)]}" for number in range(count)]


def run(
    command: list[object], out: Path, workers: int, kill: int | None = None
) -> tuple[float, float, int | None]:
    """Seconds of a run, its speed once the first part is there, and the worker that was killed."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    start = time.perf_counter()
    log = out.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*map(str, command), "--out", str(out), "--workers", str(workers)],
            stderr=errors,
            env=environment,
        )
        first, killed = None, None
        while process.poll() is None:
            written = list(out.glob("*.parquet"))
            if written and first is None:
                first, there = time.perf_counter(), len(written)
            if kill and killed is None and len(written) >= kill:
                killed = kill_worker(process.pid)
            time.sleep(0.02)
    end = time.perf_counter()
    if process.returncode or first is None:
        raise SystemExit(log.read_text())
    sizes = [pq.read_metadata(file).num_rows for file in out.glob("*.parquet")]
    left = sum(sizes) * (1 - there / len(sizes))
    return end - start, left / (end - first), killed


def kill_worker(parent: int) -> int:
    """End a process that writes parts as the machine does that has no memory left."""
    for process in psutil.Process(parent).children(recursive=True):
        if "PartWriter" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            return process.pid
    raise SystemExit("no worker found to kill")


def read(out: Path) -> pa.Table:
    """The rows of a folder, in its files' order."""
    return pa.concat_tables([pq.ParquetFile(file).read() for file in sorted(out.glob("*.parquet"))])


def leftovers(out: Path) -> int:
    """How many hidden files are in an output beside its manifest."""
    return len([file for file in out.rglob(".*") if file.name != MANIFEST])


if __name__ == "__main__":
    main()
