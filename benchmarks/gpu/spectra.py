"""The spectrum of W_U on the card, against the SVD there and the processor's result."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from made_matrix import make_matrix, projector_errors, save
from peaks import matrix_rate, once

from st_embfilter.checkpoint.unembedding import RowBlocks, Unembedding
from st_embfilter.spectral.spectrum import Spectrum


def compare_spectrum(height: int, width: int, device: str, rate_width: int) -> dict[str, Any]:
    """One shape, stored in bfloat16: from the file to the singular vectors, as `build` does it."""
    w = make_matrix(height, width, device).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        save(w.cpu(), Path(folder, "llm"))
        blocks = RowBlocks(Unembedding.from_pretrained(Path(folder, "llm")))

        def ours() -> Spectrum:
            return Spectrum.from_row_blocks(blocks, device=device)

        ours()
        found, spent, memory = once(ours, device)
        on_processor, processor, _ = once(lambda: Spectrum.from_row_blocks(blocks), "cpu")

    def svd() -> torch.Tensor:
        return torch.linalg.svd(w.float(), full_matrices=False)[2]

    # Once: of a large matrix it takes a good part of a minute.
    theirs, svd_spent, svd_memory = once(svd, device)
    right = on_processor.right_singular_vectors
    achieved = 2 * height * width**2 / spent
    rate = matrix_rate(torch.float64, device, rate_width)
    return {
        "W_U": f"{height:,} × {width:,}",
        "SVD on the card, s": svd_spent,
        "ours there, s": spent,
        "SVD / ours": svd_spent / spent,
        "ours on the processor, s": processor,
        "of the float64 matrix rate": achieved / rate,
        "GB/s of W_U": height * width * 2 / spent / 1e9,
        "memory, MB": memory / 1e6,
        "SVD's memory, MB": svd_memory / 1e6,
        "bands off the processor's": max(projector_errors(right, found.right_singular_vectors)),
        "SVD's bands off them": max(projector_errors(right, theirs.cpu())),
    }
