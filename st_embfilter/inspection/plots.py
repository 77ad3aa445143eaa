"""The pictures of a report, drawn from its figures alone, to be read without colour too."""

from collections.abc import Callable
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from st_embfilter.artifact.spectrum_picture import draw_spectrum, shade
from st_embfilter.inspection.figures import Inspection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Orange, blue and grey differ for the colour-blind; line styles and hatches do so in print.
LINES: tuple[dict[str, Any], ...] = (
    {"color": "#c2410c", "linestyle": "-", "linewidth": 2.2},
    {"color": "#1d4ed8", "linestyle": "--", "linewidth": 1.8},
    {"color": "#555555", "linestyle": ":", "linewidth": 2.2},
)
BARS: tuple[dict[str, Any], ...] = (
    {"color": "#c2410c", "hatch": ""},
    {"color": "#93b4f5", "hatch": "//"},
    {"color": "#d4d4d4", "hatch": ".."},
)
POINTS = 64


def draw(inspection: Inspection) -> dict[str, Figure]:
    """All pictures, by the names of their files."""
    drawings: dict[str, Callable[[Axes, Inspection], None]] = {
        "spectrum": _draw_singular_values,
        "energy": _draw_energy,
        "shift-by-direction": _draw_shift_by_direction,
        "shift-by-band": _draw_shift_by_band,
    }
    figures = {}
    for name, drawing in drawings.items():
        # Not through pyplot, which would choose a backend for the whole process.
        figures[name] = Figure(figsize=(7, 3.6), layout="constrained")
        drawing(figures[name].subplots(), inspection)
    return figures


def _draw_singular_values(axes: "Axes", inspection: Inspection) -> None:
    draw_spectrum(axes, inspection.singular_values, inspection.kept)


def _draw_energy(axes: "Axes", inspection: Inspection) -> None:
    """Cumulated energy along the spectrum: steep where there is much."""
    energy = inspection.energy
    lines = {
        "average token": energy.average_token,
        "mean of the embeddings": energy.mean_embedding,
        "variance around it": energy.variance,
    }
    for (label, shares), style in zip(lines.items(), LINES, strict=True):
        axes.plot(list(accumulate(shares)), label=label, **style)
    width = len(energy.variance)
    axes.plot([0, width - 1], [0, 1], color="black", linewidth=0.8, label="spread evenly")
    shade(axes, inspection.kept)
    axes.set_title("Energy up to a direction: steep is much")
    axes.set_xlabel("direction, largest singular value first")
    axes.set_xlim(0, width - 1)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="upper left", fontsize="small")


def _draw_shift_by_direction(axes: "Axes", inspection: Inspection) -> None:
    """Logit shift Δπ of each direction, for frequent, rare and random tokens."""
    width = len(inspection.singular_values)
    step = -(-width // POINTS)
    starts = range(0, width, step)
    for tokens, style in zip(inspection.token_sets, LINES, strict=True):
        means = [fmean(tokens.by_direction[start : start + step]) for start in starts]
        axes.semilogy(
            [start + (step - 1) / 2 for start in starts], means, label=tokens.name, **style
        )
    shade(axes, inspection.kept)
    axes.set_title(f"Logit shift Δπ when one direction is removed (means of {step})")
    axes.set_xlabel("direction, largest singular value first")
    axes.set_xlim(0, width - 1)
    axes.legend(title="tokens", fontsize="small")


def _draw_shift_by_band(axes: "Axes", inspection: Inspection) -> None:
    """Mean change of the logits when a band is removed, for frequent, rare and random tokens."""
    bar = 0.8 / len(inspection.token_sets)
    for number, (tokens, style) in enumerate(zip(inspection.token_sets, BARS, strict=True)):
        places = [place + (number - 1) * bar for place in range(len(inspection.bands))]
        heights = [shift.mean for shift in tokens.by_band]
        bars = axes.bar(places, heights, bar, label=tokens.name, edgecolor="black", **style)
        axes.bar_label(bars, fmt="{:+.1f}", fontsize="small", padding=2)
    names = [f"{band.name}\n({len(band.indices)})" for band in inspection.bands]
    axes.set_xticks(range(len(names)), names)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set_title("Mean change of the logits when a band is removed")
    axes.legend(title="tokens", fontsize="small")
