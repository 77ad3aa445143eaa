"""``python -m st_embfilter`` is ``st-embfilter``."""

from st_embfilter.cli import main

main()
