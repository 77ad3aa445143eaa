"""A picture of the spectrum, with the kept band."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from st_embfilter.layout.manifest import Manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEPT = "#0a6e5c"


def draw_spectrum(axes: "Axes", values: Sequence[float], kept: Sequence[int]) -> None:
    """The singular values of W_U, with the kept directions shaded.

    Args:
        axes: Where to draw.
        values: All singular values, descending.
        kept: The indices of the kept directions, in any order.
    """
    axes.semilogy(values, color="black", linewidth=1.5)
    shade(axes, kept)
    axes.set_title("Singular values of the unembedding matrix")
    axes.set_xlabel("direction, largest singular value first")
    axes.set_xlim(0, len(values) - 1)
    axes.legend(loc="upper right")


def _draw_weights(axes: "Axes", weights: Sequence[float]) -> None:
    """What each direction is weighted with, as the height of a shade."""
    axes.fill_between(
        range(len(weights)),
        weights,
        step="mid",
        transform=axes.get_xaxis_transform(),
        color=KEPT,
        alpha=0.2,
        linewidth=0,
        label="weight, 0 to 1",
    )


def shade(axes: "Axes", kept: Sequence[int]) -> None:
    """Shade the kept directions along a horizontal axis of directions."""
    indices = set(kept)
    firsts = sorted(index for index in indices if index - 1 not in indices)
    lasts = sorted(index for index in indices if index + 1 not in indices)
    for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        label = "kept" if number == 0 else None
        axes.axvspan(first - 0.5, last + 0.5, color=KEPT, alpha=0.2, linewidth=0, label=label)


def save_picture(path: Path, manifest: Manifest) -> None:
    """Draw a filter's spectrum into a PNG file."""
    # Not through pyplot, which would choose a backend for the whole process.
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    if manifest.weights:
        _draw_weights(axes, manifest.weights)
    draw_spectrum(axes, manifest.singular_values, manifest.indices or ())
    figure.savefig(path, dpi=110)
