"""The files of a submission to the MTEB leaderboard, checked by mteb itself."""

import importlib.util
import json
import keyword
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from mteb.cache import ResultCache
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult

from st_embfilter.errors import MisuseError, VerificationError
from st_embfilter.evaluation.evaluated import Evaluated, fingerprint
from st_embfilter.evaluation.model_meta import make_meta, save_result
from st_embfilter.evaluation.mteb_run import RESULTS
from st_embfilter.evaluation.task_lists import LOCAL
from st_embfilter.files import atomic_output

SOURCE = """\
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

{variable} = {meta}
"""


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        folder: Holds ``results`` in mteb's layout, and the source file.
        source: The ModelMeta source file, for mteb's ``models/model_implementations``.
        tasks: Whose results it holds.
        left_out: Results that the leaderboard can't take, with the reason.
    """

    folder: Path
    source: Path
    tasks: list[str]
    left_out: dict[str, str]


def write_submission(
    evaluated: Evaluated,
    results: Path,
    out: Path,
    *,
    languages: list[str] | None = None,
    release_date: str | None = None,
) -> Submission:
    """Write a published model's ModelMeta and its results, as the leaderboard takes them.

    Results that were measured on the model's folder before it was published are taken too: they
    carry the digest of its content as their revision, and the published files must have the same.

    Args:
        evaluated: The published model.
        results: What ``evaluate`` wrote.
        out: The folder to make.
        languages: As ``eng-Latn``; mteb wants to know which the model is for.
        release_date: Of the revision, as ``2026-11-21``.

    Raises:
        MisuseError: If there are no results of this model that a leaderboard can take.
        VerificationError: If mteb doesn't read what was written.
        OutputExistsError: If ``out`` exists.
    """
    meta = make_meta(evaluated).model_copy(
        update={
            "reference": f"https://huggingface.co/{evaluated.name}",
            "languages": languages,
            "release_date": release_date,
        }
    )
    found = _results_of(evaluated, results / RESULTS)
    left_out: dict[str, str] = {}
    with atomic_output(out, folder=True) as folder:
        cache = ResultCache(folder)
        tasks = set()
        for path, kwargs in found:
            result = TaskResult.from_disk(path)
            if result.dataset_revision.startswith(LOCAL):
                left_out[result.task_name] = "was run on local files (--data)"
                continue
            size = {"experiment_kwargs": kwargs, **kwargs} if kwargs else {}
            save_result(cache, result, meta.model_copy(update=size))
            tasks.add(result.task_name)
        if not tasks:
            reasons = "; ".join(f"{task} {why}" for task, why in left_out.items()) or "none at all"
            raise MisuseError(
                f"{results} holds no results of {evaluated.name} for a leaderboard: {reasons}"
            )
        source = folder / f"{identifier(evaluated.name)}_models.py"
        text = SOURCE.format(variable=identifier(evaluated.name), meta=meta.to_python())
        source.write_text(text, encoding="utf-8")
        _check_submission(folder, source, meta, tasks)
    return Submission(out, out / source.name, sorted(tasks), left_out)


def _results_of(evaluated: Evaluated, results: Path) -> list[tuple[Path, dict[str, int]]]:
    """Result files of a model at its full size, and of its smaller sizes with these.

    Those of baselines, and of another protocol than mteb's, are not of this model.
    """
    revisions = {evaluated.revision, fingerprint(evaluated.folder)}
    found = []
    for meta_file in sorted(results.rglob("model_meta.json")):
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        kwargs = meta["experiment_kwargs"] or {}
        if meta["revision"] in revisions and set(kwargs) <= {"embed_dim"}:
            files = [path for path in sorted(meta_file.parent.glob("*.json")) if path != meta_file]
            found += [(path, kwargs) for path in files]
    return found


def _check_submission(folder: Path, source: Path, meta: ModelMeta, tasks: set[str]) -> None:
    """Have mteb read a submission.

    Raises:
        VerificationError: If it finds fault, or less than was written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read = load_meta(source)
            loaded = ResultCache(folder).load_results(models=[read], include_remote=False)
        except Exception as error:
            raise VerificationError(f"mteb does not read the submission: {error}") from error
    if read != meta:
        raise VerificationError(f"mteb reads {source.name} otherwise than it was meant")
    names = {result.task_name for model in loaded for result in model.task_results}
    if missing := tasks - names:
        raise VerificationError(f"mteb does not find the results of {', '.join(sorted(missing))}")


def load_meta(source: Path) -> ModelMeta:
    """The ModelMeta that a source file of ours holds."""
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    meta: ModelMeta = getattr(module, source.stem.removesuffix("_models"))
    return meta


def identifier(name: str) -> str:
    """A Python name for a model's, as ``smollm2_135m_embfilter``."""
    word = re.sub(r"\W+", "_", name.rpartition("/")[2]).strip("_").lower()
    return f"model_{word}" if not word or word[0].isdigit() or keyword.iskeyword(word) else word
