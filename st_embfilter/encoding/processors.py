"""Whether a process computes with more threads than it has processors for.

The threads of one product wait for each other: where one of them has no processor to itself, all
others stand still, and it takes not twice but five to ten times as long.
"""

import logging
import os
import time
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.3
# A machine that does nothing else is a little busy.
IDLE = 0.5


def tell_crowded() -> None:
    """Say how many threads there should be, if there are more than processors for them."""
    threads = torch.get_num_threads()
    if threads == 1:
        return  # It waits for no other: there is nothing to look at.
    if threads > (free := free_processors()):
        logger.warning(
            "%s threads compute here, and there are processors for %s: other processes are busy, "
            "or the container's share is smaller. Threads wait for each other, so fewer are "
            "faster: set OMP_NUM_THREADS=%s",
            threads,
            free,
            free,
        )


def free_processors(root: Path = Path("/")) -> int:
    """How many processors this process has to itself, one at least.

    Fewer than the machine's where it is bound to some of them, where its container (cgroup) has a
    smaller share, and where other processes are busy.

    Args:
        root: Where ``proc`` and ``sys`` are; only Linux has them.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    allowed = bound or 1
    free = min(allowed, _share(root), allowed - _busy(root / "proc" / "stat") + IDLE)
    return max(1, int(free))


def _share(root: Path) -> float:
    """How many processors' time the container may have, as cgroups of version 2 or 1 say."""
    folder = root / "sys" / "fs" / "cgroup"
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((folder / "cpu" / name).read_text().strip() for name in names)
        except OSError:
            return float("inf")
    return float("inf") if quota in ("max", "-1") else int(quota) / int(period)


def _busy(file: Path) -> float:
    """How many processors are kept busy, this process apart, which waits meanwhile."""
    try:
        before = _times(file)
        time.sleep(SAMPLE_SECONDS)
        busy, all_of_them = (now - then for now, then in zip(_times(file), before, strict=True))
    except OSError:
        return 0.0
    return (os.cpu_count() or 1) * busy / all_of_them if all_of_them else 0.0


def _times(file: Path) -> tuple[int, int]:
    """The processors' time since the start: busy, and in all."""
    numbers = [int(number) for number in file.read_text().splitlines()[0].split()[1:9]]
    _, _, _, idle, waiting_for_a_disk, *_ = numbers
    return sum(numbers) - idle - waiting_for_a_disk, sum(numbers)
