"""The filter of a large checkpoint costs its W_U: in bytes read, and less than that in memory."""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.slow

BENCHMARK = ROOT / "benchmarks" / "memory" / "filter.py"


@pytest.mark.skipif(sys.platform != "linux", reason="counts bytes and memory in /proc")
def test_reads_one_tensor_in_bounded_memory() -> None:
    result = subprocess.run(
        [sys.executable, BENCHMARK, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    cost = json.loads(result.stdout)
    assert cost["checkpoint"] > 20 * cost["W_U"]
    assert cost["bytes read"] < 1.02 * cost["W_U"]
    assert cost["peak memory on top of that"] < 0.5 * cost["W_U in float32"]
