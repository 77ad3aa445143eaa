"""One encoding for all τ: the time of an evaluation at five ratios against that at one.

    python benchmarks/speed/one_pass.py MODEL [--data DIR] [--tasks STS16] [--rounds 2]

MODEL is an artifact that was built with --band edge --ratio 1. Both evaluations start from
nothing, and are run in turn in this process.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the folders share what benchmarks/ has

from machine import describe_machine

from st_embfilter.evaluation.evaluate import evaluate
from st_embfilter.evaluation.local_data import local_tasks

ONE, FIVE = (2,), (1, 2, 4, 8, 16)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", default="STS16")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.tasks.split(",")
    # mteb and torch do some things once: not a part of either.
    seconds(arguments.model, arguments.data, names[:1], ONE, warm_up=True)
    print(f"{describe_machine()}\n{arguments.tasks}, from reading the model to the tables\n")
    print("| round | τ = 2 (s) | τ = 1, 2, 4, 8, 16 (s) | ratio |\n|---|---:|---:|---:|")
    for number in range(arguments.rounds):
        # Who is first changes: a machine that slows down favours neither.
        order = (ONE, FIVE) if number % 2 == 0 else (FIVE, ONE)
        took = {ratios: seconds(arguments.model, arguments.data, names, ratios) for ratios in order}
        print(
            f"| {number + 1} | {took[ONE]:.1f} | {took[FIVE]:.1f} | {took[FIVE] / took[ONE]:.3f} |"
        )


def seconds(
    model: str, data: Path, names: list[str], ratios: tuple[int, ...], warm_up: bool = False
) -> float:
    """How long an evaluation takes that finds nothing done."""
    with tempfile.TemporaryDirectory() as out:
        tasks = local_tasks(data, names, ["eng"])
        if warm_up:
            tasks[0].load_data()
            test = tasks[0].dataset["test"]
            tasks[0].dataset["test"] = test.select(range(64))
        start = time.perf_counter()
        evaluate([model], tasks, out, ratios=ratios)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
