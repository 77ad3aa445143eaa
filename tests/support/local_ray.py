"""Ray on this machine, for the tests of one file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def local_ray(module: str) -> Iterator[None]:
    """Two processors of it; workers are given the test file's classes, which they can't import."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[module])
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
