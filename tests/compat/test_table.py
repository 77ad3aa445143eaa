"""The matrix's document keeps the lines of runs that were not repeated."""

from pathlib import Path

from compat.table import write_table

DOCUMENT = "# Title\n\n## What was run\n\nWhy.\n\n| nothing yet |\n\n## What to know\n\nMore.\n"


def line(model: str, result: str) -> tuple[str, ...]:
    return ("tool", "tool 1.0", "load(name)", f"org/{model}", result, "ok")


def test_lines_of_one_run_take_the_place_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "compatibility.md"
    path.write_text(DOCUMENT)
    write_table(path, [line("first", "1"), line("second", "2"), line("third", "3")], kept=False)
    write_table(path, [line("second", "4"), line("fourth", "5")], kept=True)
    text = path.read_text()
    rows = [row.split(" | ")[3:5] for row in text.splitlines() if "`load(name)`" in row]
    assert rows == [["first", "1"], ["second", "4"], ["third", "3"], ["fourth", "5"]]
    assert "Why.\n\n| tool |" in text and text.endswith("\n## What to know\n\nMore.\n")
