"""A picture of the spectrum, with the kept band."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

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
    indices = set(kept)
    firsts = sorted(index for index in indices if index - 1 not in indices)
    lasts = sorted(index for index in indices if index + 1 not in indices)
    for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        label = "kept" if number == 0 else None
        axes.axvspan(first - 0.5, last + 0.5, color=KEPT, alpha=0.2, linewidth=0, label=label)
    axes.set_title("Singular values of the unembedding matrix")
    axes.set_xlabel("direction, largest singular value first")
    axes.set_xlim(0, len(values) - 1)
    axes.legend(loc="upper right")


def save_picture(path: Path, values: Sequence[float], kept: Sequence[int]) -> None:
    """Draw the spectrum into a PNG file."""
    # Not through pyplot, which would choose a backend for the whole process.
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    draw_spectrum(figure.subplots(), values, kept)
    figure.savefig(path, dpi=110)
