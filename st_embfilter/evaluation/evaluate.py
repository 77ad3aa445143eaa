"""From models and tasks to scores, tables and plots in one folder."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import torch
from mteb.abstasks import AbsTask

from st_embfilter.encoding.embedder import Embedder
from st_embfilter.errors import MisuseError
from st_embfilter.evaluation.evaluated import Evaluated, load_evaluated
from st_embfilter.evaluation.methods import BASELINES, FitSample, make_methods
from st_embfilter.evaluation.mteb_run import EMBEDDINGS, Run
from st_embfilter.evaluation.score_picture import draw_scores
from st_embfilter.evaluation.scores import Score, as_csv, as_json, card_results, collect
from st_embfilter.evaluation.tables import markdown, summary
from st_embfilter.files import replace_file, writing
from st_embfilter.layout.manifest import Manifest

RATIOS = (1, 2, 4, 8)
# Of the reference's code.
PAPER_MAX_LENGTH = 512


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        scores: Every model's and method's on every task.
        failures: What went wrong, by task.
        about: What was run, on what.
    """

    scores: list[Score]
    failures: dict[str, str]
    about: dict[str, Any]

    @property
    def summary(self) -> str:
        """The averages, as Markdown."""
        return summary(self.scores, self.about)


def evaluate(
    models: Sequence[str],
    tasks: Sequence[AbsTask],
    out: str | Path,
    *,
    ratios: Sequence[float] = RATIOS,
    against: Sequence[str] = (),
    sample: FitSample | None = None,
    paper: bool = False,
    batch_size: int = 32,
    device: str | None = None,
    command: str = "",
) -> Evaluation:
    """Score models, all their τ and what they are compared with; every text is encoded once.

    The folder then holds ``results`` (mteb's layout), ``outcomes`` (what scores are made of),
    ``embeddings`` (a cache), ``scores.md``, ``scores.csv``, ``scores.json``, ``scores.png``, and
    ``card-MODEL.json`` for the model card of each artifact.
    The same call goes on where an earlier one was stopped.

    Args:
        models: Folders, or hub names.
        tasks: mteb's.
        out: The folder, made if it isn't there.
        ratios: The filter ratios τ. 1 is the raw embedding.
        against: Some of :data:`~st_embfilter.evaluation.methods.BASELINES`, and other models, which
            are scored as they are.
        sample: The text that fitted baselines are fitted on.
        paper: The paper's protocol: at most 512 tokens, and embeddings of length 1 but for
            classification.
        batch_size: Texts a forward pass.
        device: As in ``SentenceTransformer``.
        command: What the tables say they were made with.

    Returns:
        The scores, and what went wrong.

    Raises:
        EmbFilterError: One of its kinds: nothing to evaluate, no such model, a τ out of range.
        OutputWriteError: If the disk is full. Tasks that were finished stay.
    """
    out = Path(out)
    baselines = [name for name in against if name in BASELINES]
    others = [name for name in against if name not in BASELINES]
    scores: list[Score] = []
    failures: dict[str, str] = {}
    about: list[dict[str, str]] = []
    manifests: dict[str, Manifest] = {}
    for name in (*models, *others):
        # One after the other: two language models at a time may be too much.
        alone = name in others
        evaluated = load_evaluated(
            name, max_seq_length=PAPER_MAX_LENGTH if paper else None, device=device
        )
        if any(evaluated.name == one["name"] for one in about):
            raise MisuseError(f"two models are called {evaluated.name}: rename a folder")
        embedder = Embedder(
            evaluated.unfiltered(), out / EMBEDDINGS, evaluated.revision, batch_size
        )
        try:
            methods = make_methods(
                evaluated, embedder, () if alone else ratios, () if alone else baselines, sample
            )
            run = Run(evaluated, embedder, out, paper=paper)
            failures |= run.evaluate(methods, tasks)
            scores += collect(run, methods, tasks)
        finally:
            embedder.store.close()
        about.append(_describe_model(evaluated))
        if evaluated.manifest and not alone:
            manifests[evaluated.name] = evaluated.manifest
    facts = {
        "command": command,
        "protocol": "paper" if paper else "mteb",
        "mteb": mteb.__version__,
        "machine": _describe_machine(device),
        "models": about,
        "fit": {"name": sample.name, "texts": len(sample.texts)} if sample else None,
        "tasks": [
            {
                "name": task.metadata.name,
                "dataset": str(task.metadata.dataset["path"]),
                "revision": str(task.metadata.dataset["revision"]),
            }
            for task in tasks
        ],
        "notes": {task.metadata.name: task.note for task in tasks if hasattr(task, "note")},
        "failures": failures,
    }
    _write_reports(out, scores, facts, manifests)
    return Evaluation(scores, failures, facts)


def _write_reports(
    out: Path,
    scores: Sequence[Score],
    facts: dict[str, Any],
    manifests: dict[str, Manifest],
) -> None:
    """Tables and plot, in the place of an earlier run's."""
    texts = {
        "scores.md": markdown(scores, facts),
        "scores.csv": as_csv(scores),
        "scores.json": as_json(scores, facts),
    }
    for model, manifest in manifests.items():
        results = card_results([s for s in scores if s.model == model], manifest, facts)
        texts[f"card-{model.rpartition('/')[2]}.json"] = json.dumps(results, indent=1) + "\n"
    for name, text in texts.items():
        with writing(out), replace_file(out / name) as fresh:
            fresh.write_text(text, encoding="utf-8")
    if scores:
        with writing(out), replace_file(out / "scores.png") as fresh:
            draw_scores(scores, fresh)


def _describe_model(evaluated: Evaluated) -> dict[str, str]:
    """What the tables say of a model."""
    manifest = evaluated.manifest
    limit = f"at most {evaluated.model.max_seq_length} tokens"
    what = f"prompt `{manifest.prompt}`, {manifest.form}" if manifest else "as it is"
    return {
        "name": evaluated.name,
        "revision": evaluated.revision,
        "about": f"{what}, {limit}, {next(evaluated.model.parameters()).dtype}",
    }


def _describe_machine(device: str | None) -> str:
    """The processor and the releases that scores may depend on."""
    if torch.cuda.is_available() and device != "cpu":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
