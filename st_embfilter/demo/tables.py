"""The demonstration's tables in a terminal."""

from rich.console import Console
from rich.table import Table

from st_embfilter.demo.comparison import LensRow, SearchRow, mean_reciprocal_rank


def show_tokens(console: Console, rows: list[LensRow]) -> None:
    """The nearest tokens, as a table."""
    table = Table(
        title="The tokens an embedding lies closest to (cosine with W_U)", show_lines=True
    )
    for column in ("text", "raw", "filtered"):
        table.add_column(column)
    for row in rows:
        table.add_row(row.text, "  ".join(row.raw), "  ".join(row.filtered))
    console.print(table)


def show_search(console: Console, rows: list[SearchRow]) -> None:
    """At which place each query finds its answer, as a table; losses are marked too."""
    table = Table(title="Search: at which place the answer is found (1 is best)")
    table.add_column("query")
    table.add_column("answer")
    table.add_column("raw", justify="right")
    table.add_column("filtered", justify="right")
    for row in rows:
        change = row.raw - row.filtered
        mark = "[green]better[/green]" if change > 0 else "[red]worse[/red]" if change else ""
        table.add_row(row.query, row.answer, str(row.raw), f"{mark} {row.filtered}".strip())
    raw, filtered = [row.raw for row in rows], [row.filtered for row in rows]
    table.add_section()
    table.add_row(
        "mean reciprocal rank",
        "",
        f"{mean_reciprocal_rank(raw):.2f}",
        f"{mean_reciprocal_rank(filtered):.2f}",
    )
    console.print(table)


def show_sizes(console: Console, width: int) -> None:
    """Dimensions and bytes of a vector at each ratio, as a table."""
    table = Table(title="One model, every size (truncate_dim chooses)")
    for column in ("", "dimensions", "bytes per vector (float32)", "GB per million vectors"):
        table.add_column(column, justify="right")
    for ratio in (1, 2, 4, 8):
        k = width // ratio
        name = "raw" if ratio == 1 else f"τ = {ratio}"
        table.add_row(name, str(k), f"{4 * k:,}", f"{4 * k / 1000:.2f}")
    console.print(table)
