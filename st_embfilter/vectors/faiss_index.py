"""Vectors in a FAISS index, and the same kind of index of filtered vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from st_embfilter.errors import VectorFileError
from st_embfilter.vectors.job import Filtered

# They keep vectors as they are, and are made anew with the same parameters.
EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat", "IndexIVFFlat")
# They keep codes, of which vectors can be computed that are near the original ones.
LOSSY = (
    "IndexScalarQuantizer",
    "IndexPQ",
    "IndexHNSWSQ",
    "IndexHNSWPQ",
    "IndexIVFScalarQuantizer",
    "IndexIVFPQ",
)
# FAISS's own advice: more vectors make k-means slower, and its cells hardly better.
TRAINING_PER_CELL = 256
ADDED_AT_ONCE = 16_384


class FaissVectors:
    """The vectors of an index, in the order they were added; of an inverted file, by cells.

    Args:
        path: A file that ``faiss.write_index`` wrote.

    Raises:
        VectorFileError: If it can't be read, or is of a kind that doesn't keep its vectors.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.notes = path, list[str]()
        try:
            # Vectors stay on the disk until they are looked at, where FAISS is new enough.
            self.index: Any = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
        except RuntimeError as error:
            raise VectorFileError(f"{path} can't be read: {_reason(error)}") from error
        self.rows, self.width = self.index.ntotal, self.index.d
        self.missing = 0
        self.inner: Any = self.index
        self.ids: NDArray[np.int64] | None = None
        if isinstance(self.index, faiss.IndexIDMap):
            self.inner = faiss.downcast_index(self.index.index)
            self.ids = faiss.vector_to_array(self.index.id_map)
        if isinstance(self.inner, faiss.IndexIVF):
            added_as = _ids_by_cell(self.inner)
            # FAISS counts a vector with NaN, and puts it in no cell.
            self.rows = len(added_as)
            self.missing = self.index.ntotal - self.rows
            self.ids = added_as if self.ids is None else self.ids[added_as]
        self.kind = type(self.inner).__name__
        if self.kind in LOSSY:
            self.notes.append(
                f"an {self.kind} keeps codes: the vectors were computed from them, and the output "
                f"is a flat index"
            )
        elif self.kind not in EXACT:
            raise VectorFileError(
                f"{path} is an {self.kind}, which is not read: transform the vectors that it was "
                f"made of. Kinds that are: {', '.join((*EXACT, *LOSSY))}"
            )

    def blocks(self, first: int, size: int) -> Iterator[NDArray[Any]]:
        """The vectors from ``first`` on, in blocks of exactly ``size`` rows but for the last."""
        if not isinstance(self.inner, faiss.IndexIVF):
            for start in range(first, self.rows, size):
                yield self.inner.reconstruct_n(start, min(size, self.rows - start))
            return
        ends = np.cumsum(_cell_sizes(self.inner))
        for start in range(first, self.rows, size):
            stop = min(start + size, self.rows)
            block = np.empty((stop - start, self.width), np.float32)
            first_cell, last_cell = np.searchsorted(ends, [start, stop - 1], side="right")
            for cell in range(first_cell, last_cell + 1):
                begin = ends[cell - 1] if cell else 0
                low, high = max(start, begin), min(stop, ends[cell])
                _fill_from_cell(self.inner, cell, low - begin, block[low - start : high - start])
            yield block

    def write(self, out: Path, filtered: Filtered, dropped: bool, facts: dict[str, Any]) -> None:
        """Make an index of the filtered vectors, of the same kind where that keeps vectors."""
        rows = np.load(filtered.rows, mmap_mode="r")
        index = self._empty_index(rows)
        ids = self.ids
        if ids is not None and dropped:
            ids = np.delete(ids, filtered.bad)
        for start in range(0, len(rows), ADDED_AT_ONCE):
            some = np.array(rows[start : start + ADDED_AT_ONCE])
            if ids is None:
                index.add(some)
            else:
                index.add_with_ids(some, ids[start : start + ADDED_AT_ONCE])
        if isinstance(self.index, faiss.IndexIVF) and type(index) is type(self.index):
            index.set_direct_map_type(self._direct_map(dropped))
        try:
            faiss.write_index(index, str(out))
        except RuntimeError as error:
            raise OSError(_reason(error)) from error

    def _direct_map(self, dropped: bool) -> Any:
        """From ids to places, where the input has such a map."""
        kinds: Any = faiss
        kinds, kind = kinds.DirectMap, self.index.direct_map.type
        # An array has a place for every id up to the last.
        gaps = dropped or self.missing
        return kinds.Hashtable if kind == kinds.Array and gaps else kind

    def _empty_index(self, rows: NDArray[np.float32]) -> Any:
        """An index for filtered vectors, trained if need be."""
        width, metric = rows.shape[1], self.inner.metric_type
        made: Any
        if self.kind == "IndexIVFFlat":
            cells = min(self.inner.nlist, len(rows))
            if cells < self.inner.nlist:
                self.notes.append(
                    f"it has {cells} cells, not {self.inner.nlist}: there are no more vectors"
                )
            made = faiss.IndexIVFFlat(faiss.IndexFlat(width, metric), width, cells, metric)
            made.nprobe = self.inner.nprobe
            count = min(len(rows), TRAINING_PER_CELL * cells)
            chosen = np.linspace(0, len(rows) - 1, count, dtype=np.int64)
            made.train(rows[chosen])
            return made
        if self.kind == "IndexHNSWFlat":
            graph = self.inner.hnsw
            made = faiss.IndexHNSWFlat(width, graph.nb_neighbors(1), metric)
            made.hnsw.efConstruction = graph.efConstruction
            made.hnsw.efSearch = graph.efSearch
        else:
            made = faiss.IndexFlat(width, metric)
        made.metric_arg = self.inner.metric_arg
        if self.ids is None:
            return made
        kind = type(self.index) if isinstance(self.index, faiss.IndexIDMap) else faiss.IndexIDMap2
        return kind(made)


def _cell_sizes(index: Any) -> NDArray[np.int64]:
    return np.array([index.invlists.list_size(cell) for cell in range(index.nlist)], np.int64)


def _ids_by_cell(index: Any) -> NDArray[np.int64]:
    """The ids of an inverted file, cell by cell."""
    ids = [
        faiss.rev_swig_ptr(index.invlists.get_ids(cell), int(size)).copy()
        for cell, size in enumerate(_cell_sizes(index))
        if size
    ]
    return np.concatenate(ids) if ids else np.empty(0, np.int64)


def _fill_from_cell(index: Any, cell: int, first: int, out: NDArray[np.float32]) -> None:
    """Copy vectors of a cell, from its ``first`` on."""
    if type(index).__name__ == "IndexIVFFlat":
        size = (first + len(out)) * index.d * 4
        codes = faiss.rev_swig_ptr(index.invlists.get_codes(cell), int(size))
        out[:] = codes.view(np.float32).reshape(-1, index.d)[first:]
        return
    for number, row in enumerate(out):
        index.reconstruct_from_offset(cell, int(first) + number, faiss.swig_ptr(row))


def _reason(error: RuntimeError) -> str:
    """FAISS's words, without where in its source they stand."""
    return str(error).partition(".cpp:")[2].partition(": ")[2] or str(error)
