"""What is made of a model's raw embeddings: its filter at every τ, and the baselines."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from st_embfilter.encoding.checks import Embeddings
from st_embfilter.encoding.embedder import Embedder
from st_embfilter.errors import MisuseError
from st_embfilter.evaluation.evaluated import Evaluated
from st_embfilter.spectral.bands import AUTO, NESTED, BandName, band_indices, kept_dimensions
from st_embfilter.spectral.calibration import (
    Affine,
    Principal,
    all_but_the_top,
    automatic_filter,
    mean_removal,
    pca,
    principal_directions,
    whitening,
)

Transform = Callable[[Embeddings], Embeddings]
# The model's own band is named so, whichever it is.
FILTER = "filter"
RAW = "raw"
# A model that is only compared with.
AS_IS = "as is"
BANDS = tuple(name for name in get_args(BandName) if name != "edge")
# By what is fitted: those with a dimension to choose, and those that keep all.
FITTED_TO_K: dict[str, Callable[[Principal, int], Affine]] = {"pca": pca, "whitening": whitening}
FITTED: dict[str, Callable[[Principal], Affine]] = {
    "mean-removal": mean_removal,
    "all-but-the-top": all_but_the_top,
}
BASELINES = (RAW, *BANDS, "truncate", *FITTED_TO_K, *FITTED, AUTO)
# A covariance of d ≤ 8192 directions is known well enough from so many.
MAX_FIT_TEXTS = 20_000


@dataclass(frozen=True)
class Method:
    """One column of the tables.

    Attributes:
        name: ``filter``, or one of :data:`BASELINES`.
        dimensions: How many numbers it gives.
        kwargs: What tells it from the model as it is, for mteb (``experiment_kwargs``).
        transform: From raw embeddings ``(n, d)`` to its own ``(n, dimensions)``.
        fit: Where it is fitted: makes the transform, given the texts of the task to leave out.
    """

    name: str
    dimensions: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    transform: Transform | None = None
    fit: Callable[[set[str]], Transform] | None = None

    def for_task(self, texts: Callable[[], set[str]]) -> Transform:
        """The transform for a task whose texts, if they matter, ``texts`` gives."""
        if self.transform is not None:
            return self.transform
        assert self.fit is not None
        return self.fit(texts())

    @property
    def label(self) -> str:
        """As in ``pca 144``."""
        return f"{self.name} {self.dimensions}"


class FitSample:
    """The text that the fitted baselines are fitted on.

    Args:
        texts: In any order; :data:`MAX_FIT_TEXTS` of them are drawn if there are more.
        name: What the tables call it.
    """

    def __init__(self, texts: Iterable[str], name: str) -> None:
        unique = sorted(set(texts))
        if len(unique) > MAX_FIT_TEXTS:
            chosen = np.random.default_rng(0).permutation(len(unique))[:MAX_FIT_TEXTS]
            unique = [unique[i] for i in sorted(chosen)]
        if not unique:
            raise MisuseError(f"{name} holds no text to fit baselines on")
        self.texts = unique
        self.name = name
        # Several baselines in a row are fitted on the same.
        self._last: tuple[Embedder, list[str]] | None = None
        self._principal: Principal
        self.digest = hashlib.sha256("\n".join(unique).encode()).hexdigest()[:8]

    def principal(self, embedder: Embedder, left_out: set[str]) -> Principal:
        """Of the embeddings of the sample's texts but some."""
        kept = [text for text in self.texts if text not in left_out]
        if not kept:
            raise MisuseError(f"all texts of {self.name} are the task's own: fit on others")
        if (embedder, kept) != self._last:
            embeddings = embedder(kept, describe=f"Encoding {self.name}")
            self._principal, self._last = principal_directions(embeddings), (embedder, kept)
        return self._principal


def make_methods(
    evaluated: Evaluated,
    embedder: Embedder,
    ratios: Sequence[float],
    baselines: Sequence[str] = (),
    sample: FitSample | None = None,
) -> list[Method]:
    """The methods to score a model with, from one raw embedding a text.

    A model that isn't an artifact of this package is scored as it is, and τ only says to how many
    dimensions baselines bring it.

    Args:
        evaluated: The model.
        embedder: Its raw embeddings.
        ratios: The filter ratios τ. 1 is the raw embedding. None at all: only the model as it is.
        baselines: Some of :data:`BASELINES`.
        sample: Needed by those that are fitted.

    Raises:
        BandError: If a τ is out of range.
        MisuseError: If a baseline is unknown, needs a sample, or directions the artifact lacks.
    """
    width = embedder.store.width
    own = len(evaluated.matrix) if evaluated.matrix is not None else width
    if not ratios:
        whole = evaluated.apply_filter if evaluated.filter is not None else _unchanged
        return [Method(AS_IS, own, {}, whole)]
    sizes = sorted({kept_dimensions(width, ratio=ratio) for ratio in ratios}, reverse=True)
    if too_large := [k for k in sizes if own < k < width]:
        raise MisuseError(
            f"{evaluated.name} keeps {own} of {width} dimensions, and can't give {too_large[0]}: "
            f"give a larger τ, or build it with --ratio 1"
        )
    # Of other bands the first numbers are no band.
    manifest = evaluated.manifest
    if manifest and manifest.band not in NESTED and any(k not in (own, width) for k in sizes):
        raise MisuseError(
            f"{evaluated.name} keeps the {manifest.band} band, which gives no other τ "
            f"than its own, {width / own:g}"
        )
    if unknown := sorted(set(baselines) - set(BASELINES)):
        raise MisuseError(f"unknown baseline {unknown[0]!r}: use {', '.join(BASELINES)}")
    methods = []
    if width in sizes or RAW in baselines:
        methods.append(raw_method(evaluated, width))
    if evaluated.filter is not None:
        methods += [filter_method(evaluated, k) for k in sizes if k < width]
    for name in baselines:
        if name == RAW:
            continue
        # With all dimensions, auto alone is more than the raw embedding moved or turned.
        fewer = [k for k in sizes if k < width or name == AUTO]
        for k in (width,) if name in FITTED else fewer:
            methods.append(_baseline(name, k, evaluated, embedder, sample))
    return methods


def raw_method(evaluated: Evaluated, width: int) -> Method:
    """The raw embedding.

    A model that keeps all singular directions gives a rotation of it, which is as good and the
    model's own.
    """
    matrix = evaluated.matrix
    if matrix is None:
        return Method(RAW, width, {}, _unchanged)
    if evaluated.manifest and len(evaluated.manifest.indices or ()) == width:
        return Method(RAW, width, {}, evaluated.apply_filter)
    return Method(RAW, width, {"method": RAW}, _unchanged)


def _unchanged(raw: Embeddings) -> Embeddings:
    return raw


def filter_method(evaluated: Evaluated, k: int) -> Method:
    """The first k numbers of what the model gives."""
    matrix = evaluated.matrix
    assert matrix is not None
    kwargs = {} if k == len(matrix) else {"embed_dim": k}
    return Method(FILTER, k, kwargs, lambda raw: evaluated.apply_filter(raw)[:, :k])


def _baseline(
    name: str, k: int, evaluated: Evaluated, embedder: Embedder, sample: FitSample | None
) -> Method:
    """One of the baselines, bringing embeddings to k dimensions."""
    kwargs: dict[str, Any] = {"method": name, "embed_dim": k}
    if name == "truncate":
        return Method(name, k, kwargs, lambda raw: raw[:, :k])
    if name in BANDS:
        rows = directions(evaluated, name, k)
        # The mid band keeps one less of an odd k, as the reference's.
        return Method(name, len(rows), kwargs | {"embed_dim": len(rows)}, lambda raw: raw @ rows.T)
    if sample is None:
        raise MisuseError(f"the baseline {name} is fitted on text: give some with --fit FILE")

    if name == "whitening" and len(sample.texts) <= k:
        raise MisuseError(
            f"whitening to {k} dimensions needs more than {k} texts: {sample.name} has "
            f"{len(sample.texts)}"
        )

    # Before any text is encoded: an artifact may not hold them.
    spectrum = directions(evaluated, "tail", embedder.store.width) if name == AUTO else None

    def fit(left_out: set[str]) -> Transform:
        principal = sample.principal(embedder, left_out)
        if spectrum is not None:
            rows = automatic_filter(spectrum, principal)[0][:k].astype(np.float32)
            return lambda raw: raw @ rows.T
        if name in FITTED:
            return FITTED[name](principal).apply
        return FITTED_TO_K[name](principal, k).apply

    return Method(name, k, kwargs | {"fit": sample.digest}, fit=fit)


def directions(evaluated: Evaluated, band: str, k: int) -> Embeddings:
    """The rows of another band than the model's own, in the order of the spectrum.

    Raises:
        MisuseError: If the artifact doesn't hold all directions.
    """
    matrix = evaluated.matrix
    indices = evaluated.manifest.indices or [] if evaluated.manifest else []
    if matrix is None or len(indices) != matrix.shape[1]:
        raise MisuseError(
            f"the {band} band needs all singular directions, which {evaluated.name} does not "
            f"hold: build it with --band edge --ratio 1"
        )
    spectrum = matrix[np.argsort(indices)]
    return spectrum[band_indices(len(spectrum), k, band)]  # type: ignore[arg-type]
