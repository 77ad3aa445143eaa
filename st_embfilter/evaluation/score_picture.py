"""Score against dimension, a line for each method."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from st_embfilter.evaluation.methods import FILTER, RAW
from st_embfilter.evaluation.scores import CATEGORIES, Score, averages, columns


def draw_scores(scores: Sequence[Score], path: Path) -> None:
    """Draw a panel for the average and for each category, a row of panels for each model.

    Args:
        scores: Of any number of models.
        path: The PNG file to write.
    """
    groups = {key: averages(own) for key, own in columns(scores).items()}
    models = list(dict.fromkeys(model for model, _, _ in groups))
    panels = ["average", *(c for c in CATEGORIES if any(c in means for means in groups.values()))]
    names = list(dict.fromkeys(name for _, name, _ in groups))
    figure = Figure(figsize=(3.4 * len(panels), 3.4 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), len(panels), squeeze=False)
    for model, row in zip(models, grid, strict=True):
        sizes = sorted({k for one, _, k in groups if one == model})
        for panel, axes in zip(panels, row, strict=True):
            for index, name in enumerate(names):
                points = sorted(
                    (k, means[panel])
                    for (one, method, k), means in groups.items()
                    if (one, method) == (model, name) and panel in means
                )
                if not points:
                    continue
                if name == RAW:
                    axes.axhline(points[0][1], color="black", linewidth=1, linestyle=":", label=RAW)
                    continue
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    markersize=3,
                    color=f"C{index % 10}",
                    linewidth=2.5 if name == FILTER else 1,
                    label=name,
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [str(k) for k in sizes])
            axes.minorticks_off()
            axes.set_xlabel("dimensions")
            axes.set_title(CATEGORIES.get(panel, panel))
        row[0].set_ylabel(f"{model}\nscore × 100")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, format="png", dpi=110)
