"""Why a program ended, as far as its log says."""

import re


def last_error(log: str) -> str:
    """The last line of a log that names an error, cut."""
    named = [line for line in log.splitlines() if re.search(r"[A-Z]\w*Error\b", line)]
    return re.sub(r"^.*?(?=[A-Z]\w*Error)", "", named[-1])[:200] if named else "no reason given"
