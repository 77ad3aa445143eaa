"""W_U of GGUF files, against gguf's own dequantization; and broken ones."""

import hashlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from st_embfilter.checkpoint import unembedding as module
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.errors import (
    CheckpointError,
    EmbFilterError,
    MissingDependencyError,
    NoUnembeddingError,
)

VOCABULARY, WIDTH = 37, 64
HEAD, EMBEDDING = "output.weight", "token_embd.weight"
Array = npt.NDArray[Any]


def matrix(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)


def write(
    path: Path,
    tensors: dict[str, tuple[Array, Kind]],
    architecture: str = "llama",
    causal: bool | None = None,
    parts: int | None = None,
) -> Path:
    """Write a GGUF file of already quantized tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_uint32(f"{architecture}.block_count", 1)
    if causal is not None:
        writer.add_causal_attention(causal)
    if parts is not None:
        writer.add_uint16("split.count", parts)
    for name, (stored, kind) in tensors.items():
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(kind: Kind, seed: int = 0) -> tuple[Array, Kind]:
    return gguf.quants.quantize(matrix(seed), kind), kind


def whole(path: Path) -> torch.Tensor:
    return torch.cat(list(Unembedding.from_pretrained(path).row_blocks()))


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("untied", [True, False], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.TQ1_0])
def test_rows_are_ggufs(
    kind: Kind, untied: bool, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is Kind.TQ1_0:  # Its blocks are 256 wide.
        wide = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (VOCABULARY, 256))
        mine: tuple[Array, Kind] = gguf.quants.quantize(wide.astype(np.float32), kind), kind
    else:
        mine = stored(kind)
    name = HEAD if untied else EMBEDDING
    others = {EMBEDDING: stored(Kind.F32, 1)} if untied else {}
    path = write(
        tmp_path / "m.gguf", {**others, "output_norm.weight": stored(Kind.F32, 2), name: mine}
    )
    monkeypatch.setattr(module, "BLOCK_ROWS", rows)
    unembedding = Unembedding.from_pretrained(path)
    blocks = list(unembedding.row_blocks())
    expected = gguf.quants.dequantize(*mine)
    assert all(block.dtype == torch.float32 for block in blocks)
    assert np.array_equal(torch.cat(blocks).numpy(), expected)
    assert len(blocks) == -(-VOCABULARY // rows)
    assert unembedding.tensor_name == name
    assert unembedding.shape == expected.shape
    assert unembedding.dtype == kind.name
    assert unembedding.nbytes == mine[0].nbytes
    assert unembedding.sha256 == hashlib.sha256(mine[0].tobytes()).hexdigest()
    assert unembedding.revision is None


def test_writing_to_a_block_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.gguf", {HEAD: stored(Kind.F32)})

    class CopyOnWrite(np.memmap):
        """As gguf maps the file, writing to a view of it would kill the process."""

        def __new__(cls, filename: Path, mode: str) -> Any:
            return super().__new__(cls, filename, mode="c")

    monkeypatch.setattr(np, "memmap", CopyOnWrite)
    unembedding = Unembedding.from_pretrained(path)
    for block in unembedding.row_blocks():
        block.zero_()
    assert np.array_equal(torch.cat(list(unembedding.row_blocks())).numpy(), matrix(0))


def test_provenance_does_not_tell_the_files_place(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {HEAD: stored(Kind.F16)})
    provenance = Unembedding.from_pretrained(path).provenance()
    assert provenance["source"] == "m.gguf" and provenance["dtype"] == "F16"
    assert str(tmp_path) not in json.dumps(provenance)


def test_a_causal_model_that_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {EMBEDDING: stored(Kind.F32)}, causal=True)
    assert np.array_equal(whole(path).numpy(), matrix(0))


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert"])
def test_encoder(architecture: str, tmp_path: Path) -> None:
    tensors = {EMBEDDING: stored(Kind.F32)}
    path = write(tmp_path / "m.gguf", tensors, architecture, causal=False)
    with pytest.raises(NoUnembeddingError, match=f"{architecture} model without a language-model"):
        Unembedding.from_pretrained(path)


def test_no_matrix(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"output_norm.weight": stored(Kind.F32)})
    with pytest.raises(NoUnembeddingError):
        Unembedding.from_pretrained(path)


def test_one_part_of_a_split_file(tmp_path: Path) -> None:
    """Its head may be in another part, and then the embeddings would be taken for it."""
    path = write(tmp_path / "m-00001-of-00002.gguf", {EMBEDDING: stored(Kind.F32)}, parts=2)
    with pytest.raises(CheckpointError, match="split"):
        Unembedding.from_pretrained(path)
    path = write(tmp_path / "m-00001-of-00001.gguf", {EMBEDDING: stored(Kind.F32)}, parts=1)
    assert np.array_equal(whole(path).numpy(), matrix(0))


def unread(path: Path) -> None:
    """A quantization that gguf can't undo."""
    write(path, {HEAD: (np.ones((4, 8), dtype=np.int8), Kind.I8)})


def flat(path: Path) -> None:
    write(path, {HEAD: (np.ones(64, dtype=np.float32), Kind.F32)})


def cubic(path: Path) -> None:
    write(path, {HEAD: (np.ones((2, 3, 4), dtype=np.float32), Kind.F32)})


@pytest.mark.parametrize("make", [unread, flat, cubic])
def test_a_head_that_cannot_be_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "m.gguf")
    with pytest.raises(CheckpointError, match=HEAD):
        whole(tmp_path / "m.gguf")


def test_gguf_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.gguf", {HEAD: stored(Kind.F32)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'st-embfilter\[gguf\]'"):
        Unembedding.from_pretrained(path)


def test_folder_of_gguf_files(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"without a config\.json.*\(a\.gguf, b\.gguf\)"):
        Unembedding.from_pretrained(tmp_path)


def test_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"FUGG")
    with pytest.raises(CheckpointError, match="not GGUF: name the model's folder"):
        Unembedding.from_pretrained(path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("gguf")
    tensors = {EMBEDDING: stored(Kind.F16), HEAD: stored(Kind.Q8_0)}
    return write(folder / "m.gguf", tensors).read_bytes()


def test_its_first_bytes_say_what_it_is(good: bytes, tmp_path: Path) -> None:
    """As Ollama names its files."""
    (tmp_path / "sha256-0123").write_bytes(good)
    (tmp_path / "m.gguf").write_bytes(good)
    found, named = (Unembedding.from_pretrained(tmp_path / n) for n in ("sha256-0123", "m.gguf"))
    assert found.shape == named.shape and found.sha256 == named.sha256


def data_begin(content: bytes) -> int:
    """Where the tensors' data begins: the file ends with both tensors, padded to 32 bytes."""
    sizes = [stored(kind)[0].nbytes for kind in (Kind.F16, Kind.Q8_0)]
    return len(content) - sum(-(-size // 32) * 32 for size in sizes)


def test_truncated_file(good: bytes, tmp_path: Path) -> None:
    begin = data_begin(good)
    path = tmp_path / "m.gguf"
    head_end = data_begin(good) + sum(stored(kind)[0].nbytes for kind in (Kind.F16, Kind.Q8_0))
    lengths = [*range(begin + 1), *range(begin + 1, head_end, 61), head_end - 1]
    for length in lengths:
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError) as caught:
            whole(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value), length


def test_an_array_longer_than_the_file(tmp_path: Path) -> None:
    """One of a length of 2^40 would never end."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("general.numbers", [7] * 3)
    for part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        part()
    content = (tmp_path / "m.gguf").read_bytes()
    length, cut = struct.pack("<Q", 3), struct.pack("<Q", 1000)
    assert content.count(length + struct.pack("<i", 7)) == 1
    (tmp_path / "m.gguf").write_bytes(content.replace(length + b"\7", cut + b"\7"))
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        Unembedding.from_pretrained(tmp_path / "m.gguf")


NOISE = np.random.default_rng(5).bytes(2000)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GG",
        b"GGUF",
        NOISE,
        b"GGUF" + NOISE,
        b"GGUF\x03\0\0\0" + NOISE,
        b"\0" * 99,
        b"GGUF\x01\0\0\0" + bytes(40),
        b"GGUF\x03\0\0\0" + b"\xff" * 64,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
    ],
    ids=[
        "empty",
        "two bytes",
        "magic alone",
        "noise",
        "noise after magic",
        "noise after version",
        "zeros",
        "old version",
        "huge counts",
        "a git-lfs pointer",
    ],
)
def test_garbage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(EmbFilterError) as caught:
        Unembedding.from_pretrained(path)
    assert isinstance(caught.value, CheckpointError)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=250, deadline=None, derandomize=True)
def test_a_flipped_byte_in_the_tensors_list(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, where: int, value: int
) -> None:
    """Any error but the named ones would be a bug; the list is behind the metadata."""
    begin, end = good.index(EMBEDDING.encode()) - 8, data_begin(good)
    content = bytearray(good)
    content[begin + where % (end - begin)] = value
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.write_bytes(content)
    try:
        unembedding = Unembedding.from_pretrained(path)
        rows = torch.cat(list(unembedding.row_blocks()))
    except EmbFilterError:
        return
    assert rows.shape == unembedding.shape
