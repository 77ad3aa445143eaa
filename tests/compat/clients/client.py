"""What the clients share. No client sees st_embfilter, whatever its environment is."""

import importlib.util
import json
import sys


def main(embed):
    """Call ``embed(model, texts, options)`` with the command line's, and print what it gives."""
    assert importlib.util.find_spec("st_embfilter") is None, "st_embfilter is installed here"
    name, texts, options = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    vectors = embed(name, texts, options)
    # Some libraries print to standard output too.
    print("\n" + json.dumps(vectors))
