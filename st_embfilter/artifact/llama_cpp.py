"""Check llama.cpp's server against an artifact's probes.

It computes on quantized weights, knows no prompt, and serves a language model's GGUF file, with the
filter in it (``st-embfilter export DIR gguf``) or as it is; then whoever asks applies the filter.
"""

from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import torch

from st_embfilter._compat import tokenize
from st_embfilter.artifact.server import EmbeddingServer, said
from st_embfilter.artifact.server_faults import compare_directions, explain
from st_embfilter.artifact.verification import Check, load_plain
from st_embfilter.errors import ServerError
from st_embfilter.layout.filter_matrix import read_matrix
from st_embfilter.layout.manifest import Manifest

# In lengths of the embedding. With four bits a weight SmolLM2's is off by 0.17; where the mean is
# pooled, by 1.1.
QUANTIZED = 0.3


def check_llama_cpp(server: EmbeddingServer, folder: Path) -> list[Check]:
    """Check that llama.cpp's server gives an artifact's probe embeddings.

    It is asked for tokens, prompt included: of a string it would make others, where the prompt's
    end and the text's merge.

    Raises:
        ServerError: If the server refuses.
    """
    probes, model = Manifest.read(folder).probes, load_plain(folder)
    rows = []
    for text in probes.texts:
        features = tokenize(model, [text])
        ids = features["input_ids"][features["attention_mask"].bool()].tolist()
        try:
            rows.append(server.embed(ids))
        except HTTPError as error:
            raise ServerError(f"{server}: {said(error)}") from error
    found, expected = torch.tensor(rows), torch.tensor(probes.embeddings)
    matrix = torch.from_numpy(read_matrix(folder))
    used = int(found.abs().amax(dim=0).nonzero().max()) + 1 if found.any() else 0
    if found.shape[1] == matrix.shape[1] and used > len(matrix):
        # More numbers than the filter leaves: the language model's own.
        check = compare_directions(found @ matrix.T, expected, QUANTIZED)
        how = "the language model as it is: filter what it gives (VectorFilter)"
    else:
        check = compare_directions(found[:, :used], expected, QUANTIZED)
        how = f"one file, with the filter: the first {used} numbers are the embedding"
    if not check.ok:
        why = explain(folder, probes.texts, found[:, :used], QUANTIZED)
        check = replace(check, detail=f"{check.detail}: {why}")
    return [Check("server", True, f"{server}, llama.cpp, {how}. Write the prompt yourself"), check]
