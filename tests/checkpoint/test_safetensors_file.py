"""The safetensors reader, against the library's own, on good files and on broken ones."""

import json
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from st_embfilter.checkpoint.safetensors_file import DTYPES, StoredTensor, read_header, read_rows
from st_embfilter.errors import CheckpointError

FLOATS = [name for name, dtype in DTYPES.items() if dtype.is_floating_point]


def random_matrix(height: int, width: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(height, width, generator=generator, dtype=torch.float64).to(dtype)


def equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, as NaN is not equal to itself."""
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def read(content: bytes, name: str = "w", rows: int = 3) -> Tensor:
    """One matrix of a file, with this package."""
    file = BytesIO(content)
    tensor = read_header(file, "file")[name]
    file.seek(tensor.begin)
    return torch.cat([block for _, block in read_rows(file, tensor, rows, "file")])


def is_matrix(tensor: StoredTensor) -> bool:
    """What the caller of read_rows makes sure of."""
    return len(tensor.shape) == 2 and 0 not in tensor.shape and tensor.dtype in FLOATS


def pack(header: Any, data: bytes = b"") -> bytes:
    """A file of any header, which may be JSON values or raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(**changes: Any) -> dict[str, Any]:
    """The header's entry of a matrix of two rows, with changes."""
    good = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    return {key: value for key, value in {**good, **changes}.items() if value != "absent"}


WEIGHTS = {"v": random_matrix(4, 2, torch.bfloat16), "w": random_matrix(5, 3, torch.float32)}
GOOD = safetensors.torch.save(WEIGHTS, metadata={"format": "pt"})
HEADER_END = 8 + int.from_bytes(GOOD[:8], "little")


@given(
    st.sampled_from(FLOATS),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 3),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_reads_what_the_library_reads(
    dtype: str, height: int, width: int, rows: int, others: int
) -> None:
    matrix = random_matrix(height, width, DTYPES[dtype])
    tensors = {f"{'az'[i % 2]}{i}": torch.arange(i + 3, dtype=torch.uint8) for i in range(others)}
    content = safetensors.torch.save({**tensors, "w": matrix}, metadata={"by": "a test"})
    file = BytesIO(content)
    header = read_header(file, "file")
    assert header["w"].dtype == dtype and header["w"].shape == (height, width)
    assert set(header) == {*tensors, "w"}
    file.seek(header["w"].begin)
    blocks = list(read_rows(file, header["w"], rows, "file"))
    assert equal(torch.cat([block for _, block in blocks]), safetensors.torch.load(content)["w"])
    assert b"".join(stored for stored, _ in blocks) == content[header["w"].begin : header["w"].end]
    assert [len(block) for _, block in blocks[:-1]] == [rows] * (len(blocks) - 1)


BROKEN: Mapping[str, bytes] = {
    "empty file": b"",
    "seven bytes": GOOD[:7],
    "length alone": GOOD[:8],
    "length beyond the file": struct.pack("<Q", len(GOOD)) + GOOD[8:],
    "length of 2^64 - 1": b"\xff" * 8 + GOOD[8:],
    "length of 0": struct.pack("<Q", 0) + GOOD[8:],
    "an HTML page": b"<!DOCTYPE html><html><body>Sign in to continue</body></html>" * 40,
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
    "two names of the same bytes": pack({"w": entry(), "again": entry()}, bytes(24)),
    "bytes of no tensor": pack({"w": entry()}, bytes(25)),
    "header not JSON": pack(b"{'w': 1}"),
    "header not text": pack(b"\xff\xfe\xfd\xfc"),
    "header cut": pack(json.dumps({"w": entry()}).encode()[:-3], bytes(24)),
    "header nested without end": pack(b'{"w":' + b"[" * 100_000),
    "header a list": pack([entry()], bytes(24)),
    "header a number": pack(12, bytes(24)),
    "header null": pack(None, bytes(24)),
    "entry a list": pack({"w": [1, 2]}, bytes(24)),
    "entry null": pack({"w": None}, bytes(24)),
    "no dtype": pack({"w": entry(dtype="absent")}, bytes(24)),
    "no shape": pack({"w": entry(shape="absent")}, bytes(24)),
    "no offsets": pack({"w": entry(data_offsets="absent")}, bytes(24)),
    "unknown dtype": pack({"w": entry(dtype="F31")}, bytes(24)),
    "dtype null": pack({"w": entry(dtype=None)}, bytes(24)),
    "dtype a list": pack({"w": entry(dtype=["F32"])}, bytes(24)),
    "shape a number": pack({"w": entry(shape=6)}, bytes(24)),
    "shape of text": pack({"w": entry(shape=["two", 3])}, bytes(24)),
    "negative shape": pack({"w": entry(shape=[-2, -3])}, bytes(24)),
    "infinite shape": pack({"w": entry(shape=[float("inf"), 3])}, bytes(24)),
    "shape too large": pack({"w": entry(shape=[2**40, 2**40])}, bytes(24)),
    "shape too small": pack({"w": entry(shape=[1, 3])}, bytes(24)),
    "three offsets": pack({"w": entry(data_offsets=[0, 12, 24])}, bytes(24)),
    "one offset": pack({"w": entry(data_offsets=[0])}, bytes(24)),
    "offsets null": pack({"w": entry(data_offsets=None)}, bytes(24)),
    "offsets of text": pack({"w": entry(data_offsets=["0", "24"])}, bytes(24)),
    "offsets with a fraction": pack({"w": entry(data_offsets=[0.5, 24.5])}, bytes(32)),
    "offsets beyond the file": pack({"w": entry(data_offsets=[8, 32])}, bytes(24)),
    "offsets far beyond": pack({"w": entry(data_offsets=[2**64, 2**64 + 24])}, bytes(24)),
    "begin after end": pack({"w": entry(data_offsets=[24, 0])}, bytes(24)),
    "offsets into the header": pack({"w": entry(data_offsets=[-24, 0])}, bytes(24)),
    "another tensor beyond the file": pack(
        {"w": entry(), "v": entry(data_offsets=[24, 48])}, bytes(24)
    ),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_file(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="file") as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_truncated_file(length: int) -> None:
    with pytest.raises(CheckpointError):
        read(GOOD[:length])


def test_truncated_after_the_header_was_read() -> None:
    last = max(read_header(BytesIO(GOOD), "file").values(), key=lambda tensor: tensor.end)
    file = BytesIO(GOOD[:-1])
    file.seek(last.begin)
    with pytest.raises(CheckpointError, match="truncated"):
        list(read_rows(file, last, 2, "file"))


def check_against_library(content: bytes) -> None:
    """Read all matrices: what the library reads is read equal, and nothing but the named error."""
    try:
        expected = safetensors.torch.load(content)
    except Exception:  # The library has more than one exception for a broken file.
        expected = None
    file = BytesIO(content)
    try:
        header = read_header(file, "file")
    except CheckpointError:
        assert expected is None
        return
    data = 8 + int.from_bytes(content[:8], "little")
    for name, tensor in header.items():
        assert data <= tensor.begin <= tensor.end <= len(content)
        if not is_matrix(tensor):
            continue
        try:
            blocks = list(read_rows(file, tensor, 2, "file"))
        except CheckpointError:
            assert expected is None
            continue
        assert b"".join(stored for stored, _ in blocks) == content[tensor.begin : tensor.end]
        found = torch.cat([block for _, block in blocks])
        assert found.shape == tensor.shape
        if expected is not None:
            assert equal(found, expected[name])


@given(st.lists(st.tuples(st.integers(0, HEADER_END - 1), st.integers(0, 255)), max_size=3))
@example([])
@settings(max_examples=400, deadline=None, derandomize=True)
def test_flipped_header_bytes(flips: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for position, value in flips:
        content[position] = value
    check_against_library(bytes(content))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(sorted(DTYPES)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELD = st.sampled_from(["dtype", "shape", "data_offsets"])


@given(FIELD, JSON)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_value_in_a_field(field: str, value: Any) -> None:
    check_against_library(pack({"w": entry(**{field: value})}, bytes(24)))


@given(JSON)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_value_as_header(value: Any) -> None:
    check_against_library(pack(value, bytes(24)))


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=2),
    st.integers(-8, 40),
    st.integers(-8, 40),
    st.sampled_from(FLOATS),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_offsets(shape: list[int], begin: int, end: int, dtype: str) -> None:
    changed = entry(dtype=dtype, shape=shape, data_offsets=[begin, end])
    check_against_library(pack({"w": changed}, bytes(range(24))))
