"""What a card or processors do at best: what everything else is held against."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")
# Large enough for the best rate of a few cores.
SQUARE = 3072


def seconds(task: Callable[[], object], device: str, rounds: int = 2) -> float:
    """The best of some rounds, after one that isn't counted; the card has finished by then."""
    task()  # A card's first run chooses and loads its kernels.
    return min(once(task, device)[1] for _ in range(rounds))


def finish(device: str) -> None:
    """Wait for all that was asked of the card."""
    if device != "cpu":
        torch.cuda.synchronize()


def once(task: Callable[[], Result], device: str) -> tuple[Result, float, float]:
    """What it gives, its seconds, and the bytes on the card at the most, above what was there."""
    finish(device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device != "cpu" else 0
    start = time.perf_counter()
    result = task()
    finish(device)
    spent = time.perf_counter() - start
    most = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    return result, spent, most - before


def matrix_rate(dtype: torch.dtype, device: str, width: int) -> float:
    """Operations a second of a square product; a multiplication and its addition are two."""
    left, right = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
    return 2 * width**3 / seconds(lambda: left @ right, device, rounds=10)


def bandwidth(device: str, size: int) -> float:
    """Bytes a second of a copy, those read and those written."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, rounds=10)
