"""Many objects in S3: how many requests and how much memory listing and planning them take.

    python benchmarks/memory/object_listing.py [--objects 100000]

A server on this machine has so many objects, all of them the same small Parquet file, and lists
them a thousand at a time as S3 does. It answers at once: S3 takes tens of milliseconds for each
request, and the time is none of its. Linux only (/proc).
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine, status

from st_embfilter.cluster.output import Output
from st_embfilter.cluster.parts import UNFINISHED
from st_embfilter.cluster.planning import cut
from st_embfilter.stores import Place

PAGE = 1000
TIME = "2026-01-01T00:00:00.000Z"
# A small file's, as clients see it.
HEADERS = {"ETag": '"an-etag"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
COMMAND = "the command's digest"


class Objects(BaseHTTPRequestHandler):
    """S3 as far as it is read."""

    protocol_version = "HTTP/1.1"
    requests = 0
    objects = 0
    table = b""

    def do_HEAD(self) -> None:
        key = urlsplit(self.path).path.partition("/bucket/")[2]
        there = key.endswith((".parquet", UNFINISHED))
        self.answer(self.content(key) if there else b"", 200 if there else 404)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "list-type" in query:
            self.answer(self.page(query))
            return
        content = self.content(url.path.partition("/bucket/")[2])
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        self.answer(content[int(first) : int(last) + 1], 206)

    def content(self, key: str) -> bytes:
        return f'{{"command": "{COMMAND}"}}'.encode() if key.endswith(UNFINISHED) else self.table

    def page(self, query: dict[str, str]) -> bytes:
        prefix, first = query["prefix"], int(query.get("continuation-token", 0))
        count = 0 if query["max-keys"] == "1" else min(PAGE, self.objects - first)
        size = len(self.table)
        # Names of an output's parts: as a corpus they are as good as any.
        keys = [
            f"{prefix}part-{n:07d}-{0:012d}-{n:016x}.parquet" for n in range(first, first + count)
        ]
        if first == 0:
            keys.insert(0, prefix + UNFINISHED if prefix == "out/" else f"{prefix}.hidden")
        listed = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{TIME}</LastModified><ETag>x</ETag>"
            f"<Size>{size}</Size></Contents>"
            for key in keys
        )
        more = first + count < self.objects and count > 0
        token = f"<NextContinuationToken>{first + count}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"<KeyCount>{len(keys)}</KeyCount>{listed}</ListBucketResult>"
        ).encode()

    def answer(self, content: bytes, code: int = 200) -> None:
        type(self).requests += 1
        self.send_response(code)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None: ...


def list_corpus() -> int:
    return len(Place.of("s3://bucket/in").files())


def plan_corpus() -> int:
    return len(cut(Place.of("s3://bucket/in"), 8192, lambda path, schema: None, "job"))


def look_at_output() -> int:
    return len(Output(Place.of("s3://bucket/out"), COMMAND).left())


def measured(step: Callable[[], int]) -> tuple[int, float, float]:
    """What a step gives, seconds, and memory above that at its start in MB."""
    before, start = status("VmRSS"), time.perf_counter()
    given = step()
    return given, time.perf_counter() - start, status("VmHWM") - before


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=100_000)
    Objects.objects = parser.parse_args().objects
    buffer = BytesIO()
    pq.write_table(pa.table({"text": ["a text"] * 10}), buffer)
    Objects.table = buffer.getvalue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }
    print(f"{describe_machine()}\n")
    print("| step | given | requests | time (s) | memory above the start (MB) |")
    print("|---|---:|---:|---:|---:|")
    for name, step in (
        ("list a corpus", list_corpus),
        ("look at an output that was left", look_at_output),
        ("cut a corpus into parts", plan_corpus),
    ):
        Objects.requests = 0
        # Each in a process of its own, which has no memory from before.
        with get_context("spawn").Pool(1) as pool:
            given, seconds, memory = pool.apply(measured, (step,))
        print(f"| {name} | {given:,} | {Objects.requests:,} | {seconds:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
