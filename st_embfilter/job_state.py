"""How far a long job is: what a run that was stopped leaves for the next one."""

import json
from pathlib import Path
from typing import Any

from st_embfilter.files import replace_file

# For an error: what was done before lies in hidden files.
KEPT_BESIDE = ". What was done is kept in hidden files beside it: the same command goes on there"


class JobState:
    """A small JSON file beside an unfinished output.

    Args:
        path: The file.
        job: The digest of all that the output depends on. What another job has left is not taken.
    """

    def __init__(self, path: Path, job: str) -> None:
        self.path, self.job = path, job

    def left(self) -> dict[str, Any] | None:
        """What an earlier run of the same job has saved, or None."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.pop("job", None) != self.job:
            return None
        return content

    def save(self, content: dict[str, Any]) -> None:
        """Say how far the job is, in one step that a kill can't cut in two.

        Raises:
            OSError: If it can't be written. What was saved before is as it was.
        """
        with replace_file(self.path) as fresh:
            fresh.write_text(json.dumps({"job": self.job, **content}), encoding="utf-8")

    def remove(self) -> None:
        """Forget it: the rows that it speaks of are about to be written over, or are done."""
        self.path.unlink(missing_ok=True)
