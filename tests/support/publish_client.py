"""Run in a process of its own: send a folder to the hub, without looking at it first.

What publishing does after verification; without PyTorch, so that it starts at once. Prints what
came of it as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from st_embfilter.errors import EmbFilterError
from st_embfilter.hub.upload import check_token, plan_upload, upload

assert "torch" not in sys.modules


def send(folder: Path, name: str, create_pr: bool = False, **options: Any) -> dict[str, Any]:
    try:
        check_token()
        plan = plan_upload(folder, name, **options)
        return vars(upload(folder, plan, create_pr=create_pr))
    except EmbFilterError as error:
        return {"error": type(error).__name__, "message": str(error)}


# The hub's library waits longer and longer between attempts.
with mock.patch("time.sleep"):
    print(json.dumps(send(Path(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3]))))
