"""mteb's tasks on files of this machine, for where no hub is reachable.

A folder holds ``mteb/TASK/SPLIT.jsonl`` (the rows of mteb's task of that name), ``beir/NAME``
(``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``) and ``extra/NAME/SPLIT.jsonl`` (sets that
mteb has no task of: STS, classification or clustering, by their columns).
"""

import codecs
import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata, TaskType

from st_embfilter.errors import DataError, MisuseError
from st_embfilter.evaluation.task_lists import LOCAL, named_task
from st_embfilter.files import digest_file

TEST = "test"
PAIR = ("sentence1", "sentence2", "score")
LABELLED = ("text", "label")
JUDGED = ("query-id", "corpus-id", "score")


def local_tasks(data: Path, names: Sequence[str], languages: Sequence[str]) -> list[AbsTask]:
    """The tasks of a folder, whose rows are read when they are run.

    Args:
        data: The folder.
        names: Which tasks; none for all there are.
        languages: ISO 639-3 codes: of mteb's multilingual tasks, which the rows are in.

    Raises:
        MisuseError: If the folder, or a task in it, isn't there, or mteb has none of that name.
        DataError: If a set lacks a file or a column.
    """
    folders = {
        folder.name: folder
        for layout in ("mteb", "beir", "extra")
        for folder in sorted((data / layout).glob("*/"))
    }
    if not folders:
        raise MisuseError(f"{data} holds no evaluation sets: it needs mteb/, beir/ or extra/")
    if missing := [name for name in names if name not in folders]:
        raise MisuseError(f"{data} has no {missing[0]}: it has {', '.join(folders)}")
    readers = {"mteb": _task_of_mteb, "beir": _retrieval_task, "extra": _other_task}
    return [
        readers[folders[name].parent.name](folders[name], languages) for name in names or folders
    ]


def _task_of_mteb(folder: Path, languages: Sequence[str]) -> AbsTask:
    """The task that mteb has of that name, with its rows from files."""
    task = named_task(folder.name, languages)
    splits = list(task.eval_splits)
    columns: tuple[str, ...] = ()
    if isinstance(task, AbsTaskSTS):
        columns = PAIR
    elif isinstance(task, AbsTaskClassification):
        columns = (str(task.input_column_name), task.label_column_name)
        splits.append(task.train_split)
    # One file a split: of a multilingual task, the plainest subset ("en" rather than "en-ext").
    subset = min(task.hf_subsets, key=len)
    files = {split: folder / f"{split}.jsonl" for split in splits}

    def read() -> Any:
        rows = DatasetDict(
            {split: _read_json_lines(path, columns) for split, path in files.items()}
        )
        return {subset: rows} if task.metadata.is_multilingual else rows

    local = _local_task(type(task), task.metadata, files, read)
    local.hf_subsets = [subset]
    local.filter_eval_splits(task.eval_splits)
    return local


def _other_task(folder: Path, languages: Sequence[str]) -> AbsTask:
    """A task that mteb doesn't have: its columns and splits tell its kind."""
    files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    files.setdefault(TEST, folder / f"{TEST}.jsonl")
    found = _columns_of(files[TEST])
    attributes: dict[str, Any] = {}
    kind: type[AbsTask]
    columns: tuple[str, ...]
    if set(found).issuperset(PAIR):
        kind, type_name, metric, columns = AbsTaskSTS, "STS", "cosine_spearman", PAIR
    elif not set(found).issuperset(LABELLED):
        raise DataError(
            f"{files[TEST]} has the columns {', '.join(found)}: it needs {', '.join(PAIR)} (STS), "
            f"or {' and '.join(LABELLED)} (classification with a train split, else clustering)"
        )
    elif "train" in files:
        kind, type_name, metric = AbsTaskClassification, "Classification", "accuracy"
        columns = LABELLED
    else:
        kind, type_name, metric, columns = AbsTaskClustering, "Clustering", "v_measure", LABELLED
        attributes = {
            "input_column_name": LABELLED[0],
            "label_column_name": LABELLED[1],
            # All of it: mteb's default, 4%, is for sets of a hundred thousand.
            "max_fraction_of_documents_to_embed": None,
        }

    def read() -> Any:
        rows = {split: _read_json_lines(path, columns) for split, path in files.items()}
        return {"default": DatasetDict(rows)}

    metadata = _new_metadata(folder.name, type_name, metric, languages)
    return _local_task(kind, metadata, files, read, attributes)


def _retrieval_task(folder: Path, languages: Sequence[str]) -> AbsTask:
    """A retrieval task in BEIR's layout, judged by ``qrels/test.tsv``."""
    files = {
        "corpus": folder / "corpus.jsonl",
        "queries": folder / "queries.jsonl",
        TEST: folder / "qrels" / f"{TEST}.tsv",
    }

    def read() -> Any:
        parts = {
            part: _as_text(_read_json_lines(files[part], ("_id", "text")))
            for part in ("corpus", "queries")
        }
        relevant = read_judgements(files[TEST])
        asked = [i for i, name in enumerate(parts["queries"]["id"]) if name in relevant]
        if not asked:
            raise DataError(f"{files[TEST]} judges none of the queries in {files['queries']}")
        parts["queries"] = parts["queries"].select(asked)
        return {"default": {TEST: {**parts, "relevant_docs": relevant, "top_ranked": None}}}

    metadata = _new_metadata(folder.name, "Retrieval", "ndcg_at_10", languages)
    task = _local_task(AbsTaskRetrieval, metadata, files, read)
    judged = read_judgements(files[TEST])
    asked = map(str, _read_json_lines(files["queries"], ("_id",))["_id"])
    if unknown := judged.keys() - set(asked):
        # As where judgements name queries by their place, and queries have other numbers.
        task.note = (  # type: ignore[attr-defined]
            f"{len(unknown)} of {len(judged)} judged queries are not in {files['queries'].name}: "
            f"perhaps the judgements are of other queries than those of the same name"
        )
    return task


def _local_task(
    kind: type[AbsTask],
    metadata: TaskMetadata,
    files: dict[str, Path],
    read: Callable[[], Any],
    attributes: dict[str, Any] | None = None,
) -> AbsTask:
    """A task of one of mteb's classes that reads files.

    Its results carry the files' digest as the data set's revision: they can't be taken for those
    of the data set on the hub.

    Raises:
        DataError: If a file is missing.
    """
    digest = hashlib.sha256()
    for part, path in files.items():
        if not path.is_file():
            raise DataError(f"{metadata.name} lacks its {part}: there is no {path}")
        digest_file(digest, path)

    def load_data(self: Any, *args: Any, **kwargs: Any) -> None:
        if not self.data_loaded:
            self.dataset = read()
            self.dataset_transform()
            self.data_loaded = True

    dataset = {**metadata.dataset, "revision": f"{LOCAL}{digest.hexdigest()[:12]}"}
    task: AbsTask = type(
        kind.__name__,
        (kind,),
        {
            **(attributes or {}),
            "metadata": metadata.model_copy(update={"dataset": dataset}),
            "load_data": load_data,
        },
    )()
    return task


def _new_metadata(name: str, type_name: str, metric: str, languages: Sequence[str]) -> TaskMetadata:
    """What mteb wants to know of a task that it doesn't have."""
    return TaskMetadata(
        name=name,
        description=f"{name}, of this machine",
        type=cast("TaskType", type_name),
        eval_splits=[TEST],
        eval_langs=[f"{language}-Latn" for language in languages],
        main_score=metric,
        dataset={"path": f"local/{name}", "revision": "local"},
    )


def _read_json_lines(path: Path, columns: Sequence[str]) -> Dataset:
    """A file of JSON lines, mapped from disk.

    Raises:
        DataError: If it can't be read, lacks a column, or has a row without a value in one.
    """
    if missing := [column for column in columns if column not in (found := _columns_of(path))]:
        raise DataError(f"{path} lacks the column {missing[0]}: it has {', '.join(found)}")
    try:
        rows: Dataset = Dataset.from_json(str(path), encoding=_encoding(path))
    except (DatasetGenerationError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error.__cause__ or error}") from error
    for column in columns:
        if rows.data.column(column).null_count:
            raise DataError(f"{path} has a row without {column}")
    return rows


def _columns_of(path: Path) -> list[str]:
    """The columns of the first row of a file of JSON lines."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return list(dict(json.loads(file.readline())))
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} does not begin with a line of JSON: {error}") from error


def _encoding(path: Path) -> str:
    """UTF-8, and whether a byte order mark has to be taken off."""
    with path.open("rb") as file:
        return "utf-8-sig" if file.read(3) == codecs.BOM_UTF8 else "utf-8"


def _as_text(rows: Dataset) -> Dataset:
    """Rows of BEIR, whose ids may be numbers, and titles null."""
    # Without the schema's note of what the columns were.
    table = rows.rename_column("_id", "id").data.table.replace_schema_metadata(None)
    for name in ("id", "title", "text"):
        if name in table.column_names:
            column = table.column(name).cast(pa.string()).fill_null("")
            table = table.set_column(table.column_names.index(name), name, column)
    return Dataset(table)


def _whole(score: str) -> int:
    """A grade of relevance, as ``1`` or ``1.0``."""
    grade = float(score)
    if not grade.is_integer():
        raise ValueError(f"{score} is no whole number")
    return int(grade)


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """By query and document, how relevant it was judged."""
    relevant: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        if missing := [name for name in JUDGED if name not in (rows.fieldnames or ())]:
            raise DataError(f"{path} lacks the column {missing[0]}: it needs {', '.join(JUDGED)}")
        for row in rows:
            try:
                query, document, score = (row[name] for name in JUDGED)
                relevant.setdefault(query, {})[document] = _whole(score)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {rows.line_num}, is no judgement: {error}"
                ) from error
    return relevant
