"""The indexes under comparison: how each is built, how large it is, and how it is searched."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss
from tqdm import tqdm

Vectors = NDArray[np.float32]
Found = NDArray[np.int64]

RATIOS = (1, 2, 4, 8, 16)
TOP = 10
LINKS = 16  # as semantic_search_faiss has it, and with it FAISS's own efConstruction of 40
NUMBERS_A_CODE = 4  # 2 bits a number, at every τ
TRAINED_ON = 40  # vectors for each centroid, the least that FAISS asks for
RESCORE_MULTIPLIER = 4
CHUNK = 20_000
SAME = faiss.METRIC_INNER_PRODUCT


@dataclass(frozen=True)
class Kind:
    """A kind of index.

    Attributes:
        label: For people.
        build: Of unit vectors to search in ``(n, k)``, and of those to train on.
        parameter: What trades speed for recall, if anything does.
        settings: Its values, the fastest first.
        centred: Whether the mean of the vectors is subtracted from them and from the queries.
    """

    label: str
    build: Callable[[Vectors, Vectors], Any]
    parameter: str | None = None
    settings: tuple[int, ...] = (0,)
    centred: bool = False


def unit(vectors: Vectors, k: int) -> Vectors:
    """The first k numbers of each vector ``(n, d)``, at length 1."""
    cut = np.array(vectors[:, :k], np.float32)
    faiss.normalize_L2(cut)
    return cut


def build_flat(vectors: Vectors, sample: Vectors) -> Any:
    """Float32, searched through."""
    return filled(faiss.IndexFlatIP(vectors.shape[1]), vectors)


def build_int8(vectors: Vectors, sample: Vectors) -> Any:
    """A byte a number, in steps from its least value to its greatest.

    That is quantize_embeddings' own scheme. semantic_search_faiss puts these bytes into an index of
    float32, four bytes each; this one keeps them as they are.
    """
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, SAME)
    index.train(vectors)
    return filled(index, vectors)


def build_binary(vectors: Vectors, sample: Vectors) -> Any:
    """A bit a number: its sign."""
    bits = quantize_embeddings(vectors, precision="ubinary")
    return filled(faiss.IndexBinaryFlat(8 * bits.shape[1]), bits)


def build_hnsw(vectors: Vectors, sample: Vectors) -> Any:
    """Float32 in a graph of neighbours."""
    return filled(faiss.IndexHNSWFlat(vectors.shape[1], LINKS, SAME), vectors)


def build_ivf_pq(vectors: Vectors, sample: Vectors) -> Any:
    """Lists of near vectors, each kept as a byte for every four numbers."""
    k = vectors.shape[1]
    lists = list_count(len(vectors))
    coarse = faiss.IndexFlatIP(k)
    index = faiss.IndexIVFPQ(coarse, k, lists, k // NUMBERS_A_CODE, 8, SAME)
    index.pq.cp.max_points_per_centroid = TRAINED_ON
    index.train(sample[: TRAINED_ON * max(lists, 256)])
    return filled(index, vectors)


def list_count(n: int) -> int:
    """How many lists FAISS's guidelines give n vectors."""
    return round(4 * math.sqrt(n))


def filled(index: Any, vectors: Any) -> Any:
    """The index with the vectors in it."""
    starts = range(0, len(vectors), CHUNK)
    for start in tqdm(starts, desc=type(index).__name__, unit="chunk", leave=False, delay=5):
        index.add(vectors[start : start + CHUNK])
    return index


KINDS = {
    "flat": Kind("flat, float32", build_flat),
    "int8": Kind("flat, int8", build_int8),
    "binary": Kind("flat, binary", build_binary),
    "binary-centred": Kind("flat, binary, mean subtracted", build_binary, centred=True),
    "hnsw": Kind("HNSW, float32", build_hnsw, "efSearch", (16, 32, 64, 128, 256, 512, 1024)),
    "ivf-pq": Kind("IVF-PQ", build_ivf_pq, "nprobe", (1, 4, 16, 32, 64, 128, 256)),
}


def search(index: Any, queries: Vectors, setting: int = 0) -> Found:
    """The numbers of the nearest vectors to each query ``(n, 10)``, -1 where there are none."""
    if isinstance(index, faiss.IndexBinary):
        # As sentence-transformers documents it: more by their bits, the best of these by the query.
        rows, _ = semantic_search_faiss(
            queries,
            corpus_index=index,
            corpus_precision="ubinary",
            top_k=TOP,
            rescore_multiplier=RESCORE_MULTIPLIER,
        )
        return np.array([[hit["corpus_id"] for hit in row] for row in rows])
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = setting
    elif isinstance(index, faiss.IndexIVF):
        index.nprobe = setting
    found: Found = index.search(queries, TOP)[1]
    return found


def stored_bytes(index: Any) -> int:
    """How large the index is on disk, counted and not written: about what it takes in memory."""
    count = 0

    def write(block: bytes) -> int:
        nonlocal count
        count += len(block)
        return len(block)

    # In blocks: a copy of the whole would double the memory.
    writer = faiss.BufferedIOWriter(faiss.PyCallbackIOWriter(write, 1 << 20))
    binary = isinstance(index, faiss.IndexBinary)
    (faiss.write_index_binary if binary else faiss.write_index)(index, writer)
    del writer
    return count
