"""Where things are that tests read."""

from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
GOLDEN = ROOT / "tests" / "golden"
# Beside the repository, and not on every machine: public data that may not be given on with it.
SHARED = ROOT.parent / "shared"
