"""The demonstration's picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from st_embfilter.artifact.spectrum_picture import KEPT as FILTERED
from st_embfilter.artifact.spectrum_picture import draw_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from st_embfilter.demo.comparison import LensRow, SearchRow

RAW, WORSE = "#8a8a8a", "#c2410c"


def draw_picture(
    path: Path,
    provenance: dict[str, Any],
    lens: Sequence["LensRow"],
    search: Sequence["SearchRow"],
) -> None:
    """Draw spectrum, nearest tokens, search places and sizes into a PNG file."""
    figure, axes = plt.subplot_mosaic(
        [["spectrum", "search"], ["sizes", "search"], ["tokens", "tokens"]],
        figsize=(13, 11),
        height_ratios=[3, 2, 2],
        layout="constrained",
    )
    figure.suptitle("EmbedFilter on SmolLM2-135M-Instruct, τ = 2", fontsize=15)
    values = provenance["singular_values"]
    draw_spectrum(axes["spectrum"], values, provenance["indices"])
    _draw_sizes(axes["sizes"], len(values))
    _draw_search(axes["search"], search)
    _draw_tokens(axes["tokens"], lens)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_sizes(axes: "Axes", width: int) -> None:
    ratios = (1, 2, 4, 8)
    sizes = [4 * (width // ratio) for ratio in ratios]
    names = ["raw", *(f"τ = {ratio}" for ratio in ratios[1:])]
    bars = axes.barh(names, sizes, color=[RAW, FILTERED, FILTERED, FILTERED])
    axes.bar_label(bars, [f" {size:,} B, {size // 4} dimensions" for size in sizes])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.75 * sizes[0])
    axes.set_title("Bytes per vector (float32)")


def _draw_search(axes: "Axes", rows: Sequence["SearchRow"]) -> None:
    """For each query, the place of its answer before and after."""
    for y, row in enumerate(rows):
        color = WORSE if row.filtered > row.raw else FILTERED
        axes.plot([row.raw, row.filtered], [y, y], color=color, linewidth=2, zorder=1)
        axes.scatter(row.raw, y, s=60, facecolor="white", edgecolor=RAW, linewidth=2, zorder=2)
        axes.scatter(row.filtered, y, s=60, color=color, marker="D", zorder=3)
    axes.set_yticks(range(len(rows)), [row.query for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("place of the answer, 1 is best")
    axes.set_title("Search: circle raw, diamond filtered (orange: worse)")
    axes.grid(axis="x", alpha=0.3)


def _draw_tokens(axes: "Axes", rows: Sequence["LensRow"]) -> None:
    axes.set_axis_off()
    axes.set_title("The tokens an embedding lies closest to (cosine with the rows of W_U)")
    cells = [[row.text, plain(row.raw), plain(row.filtered)] for row in rows]
    table = axes.table(
        cells,
        colLabels=["text", "raw", "filtered"],
        colWidths=[0.4, 0.3, 0.3],
        cellLoc="left",
        loc="upper center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 2.2)


def plain(tokens: Sequence[str]) -> str:
    """Tokens on two lines, without what matplotlib would read as a formula."""
    words = [token.replace("$", r"\$") for token in tokens]
    half = (len(words) + 1) // 2
    return "  ".join(words[:half]) + "\n" + "  ".join(words[half:])
