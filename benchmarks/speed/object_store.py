"""A corpus in S3, filtered into S3 by two of Ray's workers: undisturbed, with faults, killed.

    python benchmarks/speed/object_store.py MODEL [--files 4] [--rows 2000] [--part-rows 100]

MODEL is an artifact. S3 is moto's, on this machine: what is shown is not its speed, but what is
there in the end and how many requests that took. The local run is what all are held against.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has
sys.path.append(str(Path(__file__).parents[2] / "tests"))  # for `from support.s3_server import …`

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from cluster import kill_worker
from st_embfilter.cluster.parts import MANIFEST
from st_embfilter.vectors.vector_filter import VectorFilter
from support import s3_server
from support.corpora import files_of, vectors_table
from support.s3_server import BUCKET, S3, serve_s3

PUT_PART = r"PUT out/.*parquet"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--part-rows", type=int, default=100)
    arguments = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "st_embfilter",
        "ray",
        "transform",
        "--filter",
        arguments.model,
    ]
    command += ["--column", "vector", "--workers", "2", "--part-rows", str(arguments.part_rows)]
    with serve_s3() as s3, tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "in")
        width = VectorFilter.from_artifact(arguments.model).width
        make_corpus(corpus, arguments.files, arguments.rows // arguments.files, width)
        start([*command, str(corpus), "--out", str(Path(folder, "out"))]).wait()
        expected = contents(files_of(Path(folder, "out")))
        print(f"{describe_machine()}\n{arguments.files} files, {len(expected)} parts\n")
        print(
            "| run | rows out | twice | objects | requests | parts put again | as the local run |"
        )
        print("|---|---:|---:|---:|---:|---:|---|")
        for run in (undisturbed, with_faults_and_a_kill, killed_and_two_at_once):
            s3.reset()
            source = s3.put(corpus, "in")
            s3.requests.clear()
            run(s3, [*command, source, "--out", f"s3://{BUCKET}/out"])
            print(f"| {run.__name__.replace('_', ' ')} | {shown(s3, expected)} |")


def make_corpus(folder: Path, files: int, rows: int, width: int) -> None:
    """Files of vectors with row groups of 50."""
    folder.mkdir()
    for number in range(files):
        table = vectors_table(number * rows, rows, width)
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=50)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def undisturbed(s3: S3, command: list[str]) -> None:
    start(command).wait()


def with_faults_and_a_kill(s3: S3, command: list[str]) -> None:
    """Every tenth request or so fails, two uploads are cut, and one of two workers is killed."""
    for number in range(10):
        s3.fail("", s3_server.FAILED, wait=10 * number)
    s3.fail(PUT_PART, s3_server.cut_off, 2, wait=3)
    s3.fail(PUT_PART, s3_server.slow, wait=5)
    process = start(command)
    wait_for_parts(s3, 4)
    kill_worker(process.pid)
    process.wait()


def killed_and_two_at_once(s3: S3, command: list[str]) -> None:
    """All of a run is killed, and then two of the same command go on at the same time."""
    process = start(command)
    wait_for_parts(s3, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for each in [start(command), start(command)]:
        each.wait()


def wait_for_parts(s3: S3, count: int) -> None:
    while len(puts(s3)) < count:
        time.sleep(0.02)


def puts(s3: S3) -> list[str]:
    return [
        each for each in s3.requests if each.startswith("PUT out/") and each.endswith("parquet")
    ]


def contents(files: dict[str, bytes]) -> dict[str, bytes]:
    """Parts without their names' digests, which differ with the input's place."""
    return {name[:-25]: data for name, data in files.items() if name != MANIFEST}


def shown(s3: S3, expected: dict[str, bytes]) -> str:
    """What is there, and what it took."""
    requests, put = len(s3.requests), Counter(puts(s3))
    objects = s3.objects("out")
    parts = json.loads(objects[MANIFEST])["parts"]
    tables = [pq.read_table(io.BytesIO(objects[part["name"]]), columns=["id"]) for part in parts]
    ids = pa.concat_tables(tables)["id"].to_numpy()
    twice = len(ids) - len(np.unique(ids))
    again = sum(count > 1 for count in put.values())
    same = "equal to the byte" if contents(objects) == expected else "another"
    return f"{len(ids):,} | {twice} | {len(objects)} | {requests:,} | {again} | {same}"


if __name__ == "__main__":
    main()
