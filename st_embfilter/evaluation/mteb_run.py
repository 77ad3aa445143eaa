"""Running mteb: every task once for every method, on embeddings that are encoded once."""

import copy
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import mteb
import numpy as np
from mteb.abstasks import AbsTask, AbsTaskClassification
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.cache import ResultCache
from mteb.models import EncoderProtocol
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult
from mteb.types import EncodeKwargs
from tqdm import tqdm

from st_embfilter.encoding.checks import Embeddings
from st_embfilter.encoding.embedder import Embedder
from st_embfilter.errors import EmbFilterError, OutputWriteError
from st_embfilter.evaluation.evaluated import Evaluated
from st_embfilter.evaluation.methods import Method, Transform
from st_embfilter.evaluation.model_meta import make_meta, save_result
from st_embfilter.evaluation.outcomes import Outcome, Recorder, save_outcome
from st_embfilter.files import remove

# In the output folder: results in mteb's layout, what they are made of, and what is only a cache.
RESULTS, OUTCOMES, EMBEDDINGS = "results", "outcomes", "embeddings"
# Of mteb: how each result was made.
RUN_SETTINGS = "run_settings.jsonl"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class StoredEncoder(AbsEncoder):
    """What mteb evaluates: one method on a model's stored embeddings.

    Args:
        embedder: The model's raw embeddings.
        meta: Names the model and the method for mteb.
        transform: The method.
        normalize: Whether embeddings are scaled to length 1, but for classification (the paper).
    """

    def __init__(
        self, embedder: Embedder, meta: ModelMeta, transform: Transform, normalize: bool
    ) -> None:
        self.mteb_model_meta = meta
        # By mteb's rules: prompts whose name is no task's, type of task's or role's are left out.
        self.model_prompts, _ = AbsEncoder.validate_task_to_prompt_name(
            {name: text for name, text in embedder.model.prompts.items() if text},
            raise_for_invalid_keys=False,
        )
        self._embedder = embedder
        self._transform = transform
        self._normalize = normalize

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Embeddings:
        """The embeddings of a task's texts, as mteb asks for them."""
        name = get_prompt_name(self.model_prompts, task_metadata, prompt_type)
        raw = self._embedder(
            [text for batch in inputs for text in batch["text"]],
            prompt_type.value if prompt_type else None,
            (self.model_prompts or {}).get(name or ""),
            f"Encoding {task_metadata.name}",
        )
        embeddings = self._transform(raw)
        if self._normalize and not task_metadata.type.endswith("Classification"):
            lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
            embeddings = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
        return embeddings


class Run:
    """One model's evaluation: what it is and where its results go.

    Args:
        evaluated: The model.
        embedder: Its raw embeddings.
        out: The output folder.
        paper: The paper's protocol: embeddings of length 1, but for classification.
    """

    def __init__(
        self, evaluated: Evaluated, embedder: Embedder, out: Path, *, paper: bool = False
    ) -> None:
        self.evaluated = evaluated
        self.embedder = embedder
        self.out = out
        self.paper = paper
        self.cache = ResultCache(out)
        self._meta = make_meta(evaluated)

    def evaluate(self, methods: Sequence[Method], tasks: Sequence[AbsTask]) -> dict[str, str]:
        """Score methods on tasks; what the output folder already holds is not computed again.

        Args:
            methods: What is made of the raw embeddings.
            tasks: mteb's.

        Returns:
            What went wrong, by task; the others are done.

        Raises:
            OutputWriteError: If the disk is full. Tasks that were finished stay.
        """
        failures: dict[str, str] = {}
        every = [part for task in tasks for part in _parts_of(task)]
        with tqdm(total=len(every) * len(methods), unit="score") as bar:
            for task in every:
                bar.set_description(task.metadata.name)
                todo = [method for method in methods if self.result(task, method) is None]
                bar.update(len(methods) - len(todo))
                if not todo:
                    continue
                try:
                    if not isinstance(task, AbsTaskAggregate):
                        task.load_data()
                    texts = _texts_once(task)
                    for method in todo:
                        self.score(task, method, texts)
                        bar.update()
                except OutputWriteError:
                    raise
                except Exception as error:
                    # One data set that can't be had must not stop a night's work on the others.
                    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                        raise OutputWriteError(f"{self.out} can't be written: {error}") from error
                    own = isinstance(error, EmbFilterError)
                    failures[task.metadata.name] = (
                        str(error) if own else f"{type(error).__name__}: {error}"
                    )
                finally:
                    if task.data_loaded:
                        task.unload_data()
        return failures

    def score(self, task: AbsTask, method: Method, texts: Callable[[], set[str]]) -> None:
        """Have mteb score one method on a task whose data is loaded."""
        outcome: Outcome | None = None
        if isinstance(task, AbsTaskAggregate):
            parts = [self._result_path(part, method) for part in task.metadata.tasks]
            result = task.combine_task_results([TaskResult.from_disk(path) for path in parts])
        else:
            result, outcome = self._run_mteb(task, method, method.for_task(texts))
        # The result last: where it is, all is.
        save_outcome(self.outcome_path(task, method), outcome, task.metadata.main_score)
        self._save_result(result, method, self._result_path(task, method))

    def _run_mteb(
        self, task: AbsTask, method: Method, transform: Transform
    ) -> tuple[TaskResult, Outcome | None]:
        fresh = _never_run(task)
        encoder = StoredEncoder(self.embedder, self.meta(method), transform, self.paper)
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(fresh, Path(folder))
            done = mteb.evaluate(
                cast("EncoderProtocol", encoder),
                fresh,
                cache=None,
                prediction_folder=recorder.predictions,
                encode_kwargs=cast("EncodeKwargs", {"batch_size": self.embedder.batch_size}),
                show_progress_bar=False,
                co2_tracker=False,
            )
            result: TaskResult = done.task_results[0]
            return result, recorder.outcome(result)

    def _save_result(self, result: TaskResult, method: Method, path: Path) -> None:
        """Have mteb write a result, and move its files to their place whole."""
        scratch = self.out / ".saving"
        remove(scratch)
        fresh = scratch / path.relative_to(self.out)
        fresh.parent.mkdir(parents=True)
        settings = path.with_name(RUN_SETTINGS)
        if settings.exists():
            # mteb adds to what is there.
            shutil.copy(settings, fresh.parent)
        save_result(ResultCache(scratch), result, self.meta(method))
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in sorted(fresh.parent.iterdir(), key=lambda file: file.name == path.name):
            file.replace(path.with_name(file.name))
        remove(scratch)

    def result(self, task: AbsTask, method: Method) -> TaskResult | None:
        """A task's whole result, of the same data, if the output folder holds it."""
        try:
            found = TaskResult.from_disk(self._result_path(task, method))
        except (FileNotFoundError, ValueError):
            return None
        whole = (
            self.outcome_path(task, method).is_file()
            and found.is_mergeable(task)
            and not found.get_missing_evaluations(task)
        )
        return found if whole else None

    def meta(self, method: Method) -> ModelMeta:
        """The model's ModelMeta, with what tells a method from the model as it is."""
        kwargs = dict(method.kwargs)
        if self.paper:
            kwargs["protocol"] = "paper"
        update = {"experiment_kwargs": kwargs or None, "embed_dim": method.dimensions}
        return self._meta.model_copy(update=update)

    def _result_path(self, task: AbsTask, method: Method) -> Path:
        return self.cache.get_task_result_path(task.metadata.name, self.meta(method))

    def outcome_path(self, task: AbsTask, method: Method) -> Path:
        """Beside the results, in the same layout."""
        path = self._result_path(task, method).relative_to(self.out / RESULTS)
        return self.out / OUTCOMES / path.with_suffix(".npz")


def _never_run(task: AbsTask) -> Any:
    """A task on the same data, in the state that mteb's random choices start from."""
    fresh: Any = copy.copy(task)
    fresh.rng_state, fresh.np_rng = copy.deepcopy((task.rng_state, task.np_rng))
    if isinstance(task, AbsTaskClassification) and hasattr(task, "_calculate_scores"):
        # mteb hands scikit-learn a column that is read from the table row by row, 16 times for
        # each of ten experiments: with 400,000 rows, half an hour a method.
        calculate = fresh._calculate_scores
        fresh._calculate_scores = lambda gold, predicted: calculate(np.asarray(gold[:]), predicted)
    return fresh


def _parts_of(task: AbsTask) -> list[AbsTask]:
    """A task, or the tasks it is the mean of and then itself."""
    if isinstance(task, AbsTaskAggregate):
        return [part for one in task.metadata.tasks for part in _parts_of(one)] + [task]
    return [task]


def _texts_once(task: AbsTask) -> Callable[[], set[str]]:
    """Gives all texts of a task, gathered when they are first asked for."""
    return cache(lambda: set(_texts_of(task.dataset)))


def _texts_of(data: Any) -> Iterator[str]:
    """Every text in a task's data, wherever it stands."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _texts_of(value)
        if isinstance(data.get("title"), str) and isinstance(data.get("text"), str):
            # As mteb gives a document to the model.
            yield f"{data['title']} {data['text']}".strip()
    elif isinstance(data, Iterable):
        for value in data:
            yield from _texts_of(value)
