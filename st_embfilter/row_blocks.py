"""Blocks of rows on their way: read ahead, worked on by all cores, in their order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def non_finite_rows(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """The numbers of the rows that hold NaN or infinity."""
    # The sum of squares shows both, at the speed of reading. It is too large now and then: then
    # all are looked at.
    flat = rows.reshape(-1, order="A")
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(flat @ flat):
            return np.empty(0, np.int64)
    return np.flatnonzero(~np.isfinite(rows).all(axis=1))


def in_order(tasks: Iterator[Callable[[], T]], workers: int, most: int) -> Iterator[T]:
    """What tasks give, in their order, a few of them done at the same time.

    Args:
        tasks: What is to be done.
        workers: How many at a time.
        most: How many are begun, or done and not taken yet. More than there are workers, they go
            on while what was taken is dealt with.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """The same items, made in a thread of their own, a few ahead of their use."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
