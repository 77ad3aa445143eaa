"""More threads than processors are noticed, and told."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from st_embfilter.encoding import processors
from st_embfilter.encoding.processors import free_processors, tell_crowded

HAVE = 8


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight processors that does nothing."""
    monkeypatch.setattr(os, "cpu_count", lambda: HAVE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(HAVE)), raising=False)
    for folder in ("proc", "sys/fs/cgroup/cpu"):
        (tmp_path / folder).mkdir(parents=True)
    keep_busy(tmp_path, monkeypatch, 0)
    return tmp_path


def keep_busy(root: Path, monkeypatch: pytest.MonkeyPatch, many: float) -> None:
    """Time passes while it is slept: of all processors, so many are busy."""
    lines = stat_lines(many)
    (root / "proc/stat").write_text(next(lines))
    monkeypatch.setattr(
        processors.time, "sleep", lambda _: (root / "proc/stat").write_text(next(lines))
    )


def stat_lines(many: float) -> Iterator[str]:
    for ticks in range(1000, 100_000, 100):
        busy = int(ticks * many / HAVE)
        yield f"cpu  {busy} 0 0 {ticks - busy} 0 0 0 0 0 0\ncpu0 1 1 1 1\n"


def test_all_of_an_idle_machine(root: Path) -> None:
    assert free_processors(root) == HAVE


@pytest.mark.parametrize(("busy", "free"), [(0.3, 8), (1, 7), (2.9, 5), (7.9, 1), (8, 1)])
def test_other_processes(
    root: Path, monkeypatch: pytest.MonkeyPatch, busy: float, free: int
) -> None:
    keep_busy(root, monkeypatch, busy)
    assert free_processors(root) == free


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_containers_share(root: Path, files: dict[str, str], free: int) -> None:
    for name, content in files.items():
        (root / "sys/fs/cgroup" / name).write_text(f"{content}\n")
    assert free_processors(root) == free


def test_bound_to_some(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert free_processors(root) == 2


def test_no_linux(tmp_path: Path) -> None:
    assert free_processors(tmp_path) >= 1


def test_it_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(processors, "free_processors", lambda: 3)
    with caplog.at_level(logging.WARNING):
        tell_crowded()
    assert "set OMP_NUM_THREADS=3" in caplog.text
    caplog.clear()
    monkeypatch.setattr(processors, "free_processors", lambda: 4)
    tell_crowded()
    assert not caplog.text
