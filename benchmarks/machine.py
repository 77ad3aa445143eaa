"""One line that says what a benchmark ran on."""

import os
import platform
from importlib.metadata import version


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
