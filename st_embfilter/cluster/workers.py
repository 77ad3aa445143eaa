"""Who does the work: Ray's workers, and the cluster they are on."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

import ray

from st_embfilter.errors import ClusterError, MisuseError


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        count: How many processes. Default: as many as there are CPUs, or GPUs, for.
        cpus: CPUs for each, which is also its number of threads.
        gpus: GPUs for each. 0 computes on CPUs; with 0.5, two workers share one.
        address: The Ray cluster's, ``auto`` or ``ray://head:10001``. Default: the one that this
            process is connected to, or that ``RAY_ADDRESS`` names; else one is started on this
            machine, and ended.
    """

    count: int | None = None
    cpus: int = 1
    gpus: float = 0
    address: str | None = None


def room(workers: Workers) -> int:
    """For how many workers there are CPUs and GPUs now.

    Raises:
        MisuseError: If there are for none.
    """
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = there.get("CPU", 0), there.get("GPU", 0)
    fit = int(cpus // workers.cpus)
    if workers.gpus:
        fit = min(fit, int(gpus / workers.gpus))
    if not fit:
        raise MisuseError(
            f"no worker of {workers.cpus} CPUs and {workers.gpus:g} GPUs fits: Ray has "
            f"{cpus:g} CPUs and {gpus:g} GPUs"
        )
    return fit


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Ray for as long as it is needed, and whether it was started for this; it talks to stderr.

    Raises:
        ClusterError: If there is none at the address.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):
        if ray.is_initialized():
            yield False
            return
        address = address or os.environ.get("RAY_ADDRESS", "local")
        try:
            ray.init(
                address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClusterError(f"Ray can't be reached at {address}: {error}") from error
        try:
            yield address == "local"
        finally:
            ray.shutdown()
