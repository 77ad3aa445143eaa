"""What a benchmark ran on, and how much memory it took."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

MB = 1e6


def describe_machine() -> str:
    """CPU, cores and the versions that matter."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    packages = ("torch", "transformers", "sentence-transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def status(key: str) -> float:
    """An entry of this process's memory, in MB. Linux only (/proc)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key)) / MB
