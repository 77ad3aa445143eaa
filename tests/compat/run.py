"""Fill the compatibility matrix: publish artifacts to a hub on this machine, load them everywhere.

    python tests/compat/run.py ENVIRONMENTS [--out docs/compatibility.md] [--only WORD] [--tiny]

ENVIRONMENTS is the folder of virtual environments that `make compat` makes of the files in
``requirements``. Every row is a process of its own that reaches nothing but this hub; its
embeddings of the artifact's probes must be off by at most 1e-4 of their length. Ends with code 1
if a row fails.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from artifacts import GEMMA_FILE, language_model, publish, scaled_model
from matrix import Matrix
from rows import EXACT, GEMMA, PORTABLE, ROWS, THIN
from served import run_served
from servers import SERVED
from table import write_table

from support.hub_server import serve


def main() -> None:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environments", type=Path)
    parser.add_argument("--out", type=Path, help="the document that holds the table")
    parser.add_argument("--only", default="", help="rows whose name, tool or model holds this")
    parser.add_argument("--tiny", action="store_true", help="with a tiny random language model")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        llm = language_model(work / "llm", arguments.tiny)
        tiny = scaled_model(work / "tiny")
        with serve({"org/llm": llm, "org/tiny": tiny}) as hub:
            hub.tokens["hf_writes"] = ("org",)
            matrix = Matrix(arguments.environments.absolute(), hub, work)
            rows = [r for r in ROWS if arguments.only in f"{r.name} {r.environment} {r.model}"]
            served = [r for r in SERVED if arguments.only in f"{r.name} {r.server} {r.model}"]
            if not GEMMA_FILE.is_file():
                print(f"{GEMMA}: skipped, {GEMMA_FILE} is not there (make gemma)", flush=True)
                rows, served = ([r for r in kind if r.model != GEMMA] for kind in (rows, served))
            cards = (PORTABLE, EXACT, THIN) if arguments.only in "card" else ()
            mteb = (PORTABLE,) if arguments.only in "mteb run" else ()
            folders = publish(
                matrix.call, work, {*(r.model for r in (*rows, *served)), *cards, *mteb}
            )
            for row in rows:
                manifest = json.loads((folders[row.model] / "embfilter.json").read_text())
                matrix.row(row, manifest["probes"])
            for name in cards:
                matrix.snippets(name)
            for name in mteb:
                matrix.mteb_run(folders[name])
            for one in served:
                run_served(matrix, one, folders)
    if arguments.out:
        write_table(arguments.out, matrix.lines, kept=bool(arguments.only))
    print(f"{len(matrix.lines) - len(matrix.failed)} passed, {len(matrix.failed)} failed")
    sys.exit(bool(matrix.failed))


if __name__ == "__main__":
    main()
