"""The table of what was run, inside its document."""

from pathlib import Path

Line = tuple[str, ...]


def write_table(path: Path, lines: list[Line], kept: bool) -> None:
    """Put the table into the document; if ``kept``, beside the lines of other calls there."""
    columns = ("tool", "versions", "call", "form", "off by", "")
    before, heading, after = path.read_text().partition("## What was run\n")
    section, next_heading, tail = after.partition("\n## ")
    rows = [f"| {' | '.join(row)} |" for row in with_code(lines)]
    if kept:
        old = [line for line in section.splitlines() if line.startswith("| ")][1:]
        # What a newer line of the same has in common with an older: all but what came of it.
        same = {tuple(row.split(" | ")[:4]): row for row in (*old, *rows)}
        rows = list(same.values())
    table = "\n".join([f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *rows])
    said = "\n".join(line for line in section.splitlines() if not line.startswith("|")).strip()
    path.write_text(f"{before}{heading}\n{said}\n\n{table}\n{next_heading}{tail}")


def with_code(lines: list[Line]) -> list[Line]:
    """The calls as code, the repositories by their form."""
    return [
        (name, versions, call if "`" in call else f"`{call}`", form.removeprefix("org/"), *rest)
        for name, versions, call, form, *rest in lines
    ]
