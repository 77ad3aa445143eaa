"""Running mteb: every task once for every method, on embeddings that are encoded once."""

import copy
import errno
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import mteb
import numpy as np
from mteb.abstasks import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.cache import ResultCache
from mteb.models import EncoderProtocol
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult
from mteb.types import EncodeKwargs
from tqdm import tqdm

from st_embfilter.errors import EmbFilterError, OutputWriteError
from st_embfilter.evaluation.embedder import Embedder, Embeddings, Evaluated
from st_embfilter.evaluation.methods import Method, Transform
from st_embfilter.evaluation.model_meta import make_meta
from st_embfilter.evaluation.outcomes import Recorder, save_outcome

# In the output folder: results in mteb's layout, what they are made of, and what is only a cache.
RESULTS, OUTCOMES, EMBEDDINGS = "results", "outcomes", "embeddings"
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
            dict(embedder.model.prompts), raise_for_invalid_keys=False
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
        every = [part for task in tasks for part in parts_of(task)]
        with tqdm(total=len(every) * len(methods), unit="score") as bar:
            for task in every:
                bar.set_description(task.metadata.name)
                todo = [method for method in methods if not self.is_done(task, method)]
                bar.update(len(methods) - len(todo))
                if not todo:
                    continue
                try:
                    if not isinstance(task, AbsTaskAggregate):
                        task.load_data()
                    for method in todo:
                        self.score(task, method)
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

    def score(self, task: AbsTask, method: Method) -> None:
        """Have mteb score one method on a task whose data is loaded."""
        # Every method gets the state that mteb's random choices have in a task never run.
        fresh = copy.copy(task)
        fresh.rng_state, fresh.np_rng = copy.deepcopy((task.rng_state, task.np_rng))
        encoder = StoredEncoder(
            self.embedder,
            self.meta(method),
            method.for_task(lambda: set(texts_of(task.dataset))),
            self.paper,
        )
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(fresh, Path(folder))
            result: TaskResult = mteb.evaluate(
                cast("EncoderProtocol", encoder),
                fresh,
                # A mean of tasks is made of what is there.
                cache=self.cache if isinstance(task, AbsTaskAggregate) else None,
                prediction_folder=recorder.predictions,
                encode_kwargs=cast("EncodeKwargs", {"batch_size": self.embedder.batch_size}),
                show_progress_bar=False,
                co2_tracker=False,
            ).task_results[0]
            outcome = recorder.outcome(result)
        metric = task.metadata.main_score
        save_outcome(self.outcome_path(task, method), outcome, metric)
        self.cache.save_to_cache(result, self.meta(method))

    def is_done(self, task: AbsTask, method: Method) -> bool:
        """Whether the output folder holds a task's whole result, of the same data."""
        path = self.result_path(task, method)
        try:
            found = TaskResult.from_disk(path)
        except FileNotFoundError:
            return False
        except ValueError:
            # Torn by a kill or a full disk.
            path.unlink()
            return False
        return (
            self.outcome_path(task, method).is_file()
            and found.is_mergeable(task)
            and not found.get_missing_evaluations(task)
        )

    def meta(self, method: Method) -> ModelMeta:
        """The model's ModelMeta, with what tells a method from the model as it is."""
        kwargs = dict(method.kwargs)
        if self.paper:
            kwargs["protocol"] = "paper"
        update = {"experiment_kwargs": kwargs or None, "embed_dim": method.dimensions}
        return self._meta.model_copy(update=update)

    def result_path(self, task: AbsTask, method: Method) -> Path:
        """Where mteb puts a result."""
        return self.cache.get_task_result_path(task.metadata.name, self.meta(method))

    def outcome_path(self, task: AbsTask, method: Method) -> Path:
        """Beside the results, in the same layout."""
        path = self.result_path(task, method).relative_to(self.out / RESULTS)
        return self.out / OUTCOMES / path.with_suffix(".npz")


def parts_of(task: AbsTask) -> list[AbsTask]:
    """A task, or the tasks it is the mean of and then itself."""
    if isinstance(task, AbsTaskAggregate):
        return [part for one in task.metadata.tasks for part in parts_of(one)] + [task]
    return [task]


def texts_of(data: Any) -> Iterator[str]:
    """Every text in a task's data, wherever it stands."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from texts_of(value)
        if isinstance(data.get("title"), str) and isinstance(data.get("text"), str):
            # As mteb gives a document to the model.
            yield f"{data['title']} {data['text']}".strip()
    elif isinstance(data, Iterable):
        for value in data:
            yield from texts_of(value)
