"""Which tasks a benchmark has."""

from collections.abc import Sequence

import mteb
from mteb.abstasks import AbsTask

from st_embfilter.errors import MisuseError

PAPER = "paper"
# What the revision of a data set begins with that was read from files of this machine.
LOCAL = "local-"
# The paper evaluates 8 of the 15 retrieval tasks of MTEB(eng, v1), and all of its other 41 tasks.
# That is 49, as its Table 1 counts them by category (how that was settled:
# docs/research/results.md).
NOT_IN_THE_PAPER = (
    "ClimateFEVER",
    "CQADupstackRetrieval",
    "DBPedia",
    "FEVER",
    "HotpotQA",
    "MSMARCO",
    "NQ",
)


def benchmark_tasks(name: str) -> list[AbsTask]:
    """The tasks of one of mteb's benchmarks, or of ``paper``.

    Raises:
        MisuseError: If there is no such benchmark.
    """
    try:
        tasks = list(mteb.get_benchmark("MTEB(eng, v1)" if name == PAPER else name).tasks)
    except KeyError as error:
        raise MisuseError(f"unknown benchmark: {error.args[0]} (or: {PAPER})") from error
    if name == PAPER:
        tasks = [task for task in tasks if task.metadata.name not in NOT_IN_THE_PAPER]
    return tasks


def named_tasks(names: Sequence[str], languages: Sequence[str]) -> list[AbsTask]:
    """The tasks of these names, with their test splits if they have such.

    Args:
        names: As mteb has them.
        languages: ISO 639-3 codes; of a multilingual task only these are taken.

    Raises:
        MisuseError: If a task is unknown, or has none of the languages.
    """
    return [named_task(name, languages) for name in names]


def named_task(name: str, languages: Sequence[str]) -> AbsTask:
    """One of :func:`named_tasks`."""
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise MisuseError(f"unknown task: {error.args[0].removeprefix('KeyError: ')}") from error
    try:
        task.filter_languages(list(languages), exclusive_language_filter=True)
    except ValueError as error:
        raise MisuseError(
            f"{name} has no data in {', '.join(languages)}: its languages are "
            f"{', '.join(sorted(task.metadata.languages))} (--languages)"
        ) from error
    if "test" in task.metadata.eval_splits:
        task.filter_eval_splits(["test"])
    return task
