"""The table and the picture of the search benchmark, from what quality.py and scale.py wrote.

    python benchmarks/search/report.py [--results DIR] [--picture docs/search.png]

Writes DIR/tables.md and the picture. The second table is computed, not measured: what a billion
vectors take, by the formulas of stored_size, which are held to the sizes that were measured.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from indexes import KINDS, LINKS, NUMBERS_A_CODE, list_count
from matplotlib.figure import Figure

HERE = Path(__file__).parents[1]
BILLION = 10**9
PRICE = 5.0  # US dollars a GB of memory and month: an assumption
EXHAUSTIVE = ("flat", "int8", "binary", "binary-centred")
# A line's style, for each kind; they differ in grey as well.
STYLES: dict[str, dict[str, Any]] = {
    "flat": {"color": "black", "marker": "o", "linestyle": "-"},
    "hnsw": {"color": "#555555", "marker": "s", "linestyle": ":"},
    "int8": {"color": "#c2410c", "marker": "D", "linestyle": "-", "linewidth": 2.4},
    "ivf-pq": {"color": "#1d4ed8", "marker": "^", "linestyle": "--"},
    "binary-centred": {"color": "#0f766e", "marker": "v", "linestyle": "-."},
    "binary": {"color": "#9ca3af", "marker": "x", "linestyle": "-"},
}
Row = dict[str, Any]


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "search")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "search.png")
    arguments = parser.parse_args()
    quality, scale = (
        json.loads((arguments.results / name).read_text(encoding="utf-8"))
        for name in ("quality.json", "scale.json")
    )
    scores = {(row["kind"], row["ratio"]): row["ndcg_at_10"] for row in quality["rows"]}
    text = f"{measured_table(scale, scores)}\n\n{computed_table(scale, scores)}\n"
    (arguments.results / "tables.md").write_text(text, encoding="utf-8")
    print(text, end="")
    draw(scale["rows"], scores).savefig(arguments.picture, format="png", dpi=110)


def measured_table(scale: Row, scores: dict[tuple[str, int], float]) -> str:
    """A row for each kind and τ."""
    lines = [
        f"{scale['machine']}. Built with {scale['build_threads']} threads, searched with one, "
        "a query at a time, in the processor's time. nDCG@10 × 100 on Cranfield.",
        "",
        "| index | τ | numbers | vectors | bytes a vector | build (core s) | queries/s "
        "| × raw flat | setting | recall@10 | found | agreement | nDCG@10 |",
        f"|---|{'---:|' * 12}",
    ]
    for row in scale["rows"]:
        kind = KINDS[row["kind"]]
        setting = f"{kind.parameter} {row['setting']}" if kind.parameter else ""
        lines.append(
            f"| {kind.label} | {row['ratio']} | {row['dimensions']} | {row['vectors']:,} "
            f"| {row['bytes_per_vector']:,.0f} | {row['build_core_seconds']:,.1f} "
            f"| {row['queries_per_second']:,.3g} | {row['times_flat_raw']:,.3g} | {setting} "
            f"| {row['recall']:.3f} | {row['found']:.3f} | {row['agreement']:.3f} "
            f"| {100 * scores[row['kind'], row['ratio']]:.2f} |"
        )
    return "\n".join(lines)


def stored_size(kind: str, k: int, n: int) -> float:
    """Bytes of an index of n vectors of k numbers.

    Flat 4k a vector, int8 k, binary k / 8 in whole bytes. HNSW 4k, 8M for the 2M links on the
    lowest level, 4M for those on each further level, which one vector in M reaches, and 12 for the
    vector's level and the place of its links. IVF-PQ k / 4 for the code and 8 for the id; besides,
    4k + 8 for each of 4√n lists, and 4k for each of a code's 256 values.
    """
    sizes = {
        "flat": 4 * k * n,
        "int8": k * n + 8 * k,
        "binary": math.ceil(k / 8) * n,
        "binary-centred": math.ceil(k / 8) * n,
        "hnsw": (4 * k + 8 * LINKS + 4 * LINKS / (LINKS - 1) + 12) * n,
        "ivf-pq": (k / NUMBERS_A_CODE + 8) * n + (4 * k + 8) * list_count(n) + 4 * k * 256,
    }
    return sizes[kind]


def computed_table(scale: Row, scores: dict[tuple[str, int], float]) -> str:
    """A billion vectors: size, price of its memory, and time of a search through all."""
    worst = max(
        abs(stored_size(row["kind"], row["dimensions"], row["vectors"]) / measured - 1)
        for row in scale["rows"]
        for measured in (row["bytes_per_vector"] * row["vectors"],)
    )
    lines = [
        "Computed for 1,000,000,000 vectors, not measured. Sizes by the formulas of `stored_size` "
        f"(report.py), which differ from the sizes measured above by {worst:.2%} at most. Memory "
        f"at an assumed {PRICE:g} US dollars a GB and month. Seconds a query: where every vector "
        "is compared, in proportion to the measured ones, on one thread.",
        "",
        "| index | τ | numbers | GB | US dollars a month | × raw flat | seconds a query "
        "| nDCG@10 |",
        f"|---|{'---:|' * 7}",
    ]
    raw = stored_size("flat", scale["width"], BILLION)
    for row in scale["rows"]:
        size = stored_size(row["kind"], row["dimensions"], BILLION)
        seconds = BILLION / row["vectors"] / row["queries_per_second"]
        lines.append(
            f"| {KINDS[row['kind']].label} | {row['ratio']} | {row['dimensions']} "
            f"| {size / 1e9:,.0f} | {PRICE * size / 1e9:,.0f} | {size / raw:.3f} "
            f"| {f'{seconds:,.0f}' if row['kind'] in EXHAUSTIVE else ''} "
            f"| {100 * scores[row['kind'], row['ratio']]:.2f} |"
        )
    return "\n".join(lines)


def draw(rows: list[Row], scores: dict[tuple[str, int], float]) -> Figure:
    """NDCG@10 against bytes a vector, a line for each kind of index."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    raw = 100 * scores["flat", 1]
    axes.axhline(raw, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    axes.text(5, raw + 0.15, "raw, exact", fontsize=8)
    for name, style in STYLES.items():
        points = [
            (row["bytes_per_vector"], 100 * scores[name, row["ratio"]], row["ratio"])
            for row in rows
            if row["kind"] == name
        ]
        size, score, _ = zip(*points, strict=True)
        axes.plot(
            size, score, **{"linewidth": 1.4, "markersize": 5} | style, label=KINDS[name].label
        )
        for x, y, ratio in points:
            offset = (0, -13 if name in ("hnsw", "binary") else 6)  # out of their neighbours' way
            axes.annotate(
                str(ratio), (x, y), offset, textcoords="offset points", ha="center", fontsize=8
            )
    axes.set_xscale("log")
    ticks = [5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, axes.get_ylim()[1] + 0.5)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_xlabel("bytes a vector, whole index (1 million vectors); at the points: τ")
    axes.set_ylabel("nDCG@10 × 100, Cranfield")
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure


if __name__ == "__main__":
    main()
