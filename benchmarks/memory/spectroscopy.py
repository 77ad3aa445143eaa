"""What Lens and Spectroscopy cost in memory, at the size of Qwen2.5-0.5B's W_U.

    python benchmarks/memory/spectroscopy.py

Makes a checkpoint with an unembedding matrix of 151,936 × 896 in bfloat16 (272 MB), and in a fresh
process takes the average token, the logit shifts of 100 tokens and the top tokens of 100
embeddings. (What the spectrum costs, filter.py measures.) Linux only (/proc).
"""

from itertools import islice
from pathlib import Path

import torch
from filter import MB, measure_afresh, status

TEXTS, TOKENS, TOP = 100, 100, 10


def measure(folder: Path) -> dict[str, float]:
    """Read the matrix in this process and report, in MB."""
    from st_embfilter import Spectrum, Unembedding
    from st_embfilter.spectral.lens import logit_lens
    from st_embfilter.spectral.spectroscopy import average_token, gather_rows, logit_shift

    unembedding = Unembedding.from_pretrained(folder)
    height, width = unembedding.shape
    before = status("VmRSS")
    # Of some rows: which directions they are is all one here.
    spectrum = Spectrum.from_row_blocks(islice(unembedding.row_blocks(), 1))
    log_p = torch.arange(1, height + 1).double().reciprocal().log()
    average_token(spectrum, unembedding.row_blocks(), log_p)
    embeddings = torch.randn(TEXTS, width, generator=torch.Generator().manual_seed(0))
    rows = gather_rows(unembedding.row_blocks(), torch.arange(TOKENS))
    logit_shift(embeddings, rows, spectrum)
    logit_lens(embeddings, unembedding.row_blocks(), TOP)
    return {
        "W_U": unembedding.nbytes / MB,
        "W_U in float32": height * width * 4 / MB,
        "memory of the imports alone": before,
        "peak memory on top of that": status("VmHWM") - before,
    }


if __name__ == "__main__":
    measure_afresh(__doc__, __file__, measure)
