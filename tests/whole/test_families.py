"""Every decoder family: W_U is the head's matrix, and what is pooled is what it reads.

With EMBFILTER_FAMILIES naming a file, the figures are written there as a table
(``make families``).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from st_embfilter import Unembedding, build_model, save_pretrained
from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.encoding.packed_weights import pack_weights
from st_embfilter.encoding.prefix_encoder import PrefixEncoder
from st_embfilter.encoding.probes import PROBE_TOLERANCE
from support.comparing import relative
from support.families import FAMILIES, MULTIMODAL, TEXTS, head_inputs, save_tiny
from support.paths import ROOT

pytestmark = pytest.mark.slow

# Transformers 4 can't load these without their head.
LOST_BY_4 = ("Gemma3TextConfig", "Gemma3nTextConfig")
COLUMNS = (
    "family",
    "class",
    "W_U in the files",
    "tied",
    "W_U",
    "what the head reads",
    "round trip",
    "padding",
    "prompt once",
    "reused",
)


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, ...]]]:
    """Collects the rows; writes them where they are wanted."""
    rows: list[tuple[str, ...]] = []
    yield rows
    if path := os.environ.get("EMBFILTER_FAMILIES"):
        lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        before, heading, _ = Path(path).read_text().partition("## Families\n")
        Path(path).write_text(f"{before}{heading}\n{text}\n")


def test_table_in_the_documents_lists_every_family() -> None:
    table = (ROOT / "docs" / "families.md").read_text()
    assert [family for family in (*FAMILIES, *MULTIMODAL) if f"\n| {family} | " not in table] == []


@pytest.mark.parametrize("family", [*FAMILIES, *MULTIMODAL])
def test_family(family: str, tmp_path: Path, table: list[tuple[str, ...]]) -> None:
    name, settings = (FAMILIES | MULTIMODAL)[family]
    if not hasattr(transformers, name):
        pytest.skip(f"this release of transformers doesn't know {family}")
    if TRANSFORMERS_MAJOR < 5 and ("rope_parameters" in str(settings) or name in LOST_BY_4):
        pytest.skip(f"{family} is refused with transformers 4, or written for 5 here")
    llm = save_tiny(family, tmp_path / "llm")
    unembedding = Unembedding.from_pretrained(tmp_path / "llm")
    matrix = torch.cat(list(unembedding.row_blocks()))
    llm_head = llm.get_output_embeddings().weight
    to_head = float((matrix - llm_head.detach()).abs().max())

    model = build_model(tmp_path / "llm", band="edge", ratio=1, device="cpu")
    alone = np.stack([model.encode(text) for text in TEXTS])
    together = model.encode(TEXTS)
    ids = [model[0].tokenize([text])["input_ids"] for text in TEXTS]
    # All directions are kept, so that the filter is a rotation.
    read = head_inputs(llm, ids) @ model[2].linear.weight.numpy().T

    encoder = PrefixEncoder(model)
    sooner = encoder.encode(TEXTS)

    path = save_pretrained(model, tmp_path / "artifact")
    loaded = SentenceTransformer(str(path), device="cpu")
    plain = loaded.encode(TEXTS)
    pack_weights(loaded)
    packed = PrefixEncoder(loaded).encode(TEXTS)

    differences = (
        relative(alone, read),
        relative(plain, together),
        relative(together, alone),
        relative(sooner, together),
    )
    table.append(
        (
            family,
            type(llm).__name__,
            f"`{unembedding.tensor_name}`",
            "yes" if llm.get_input_embeddings().weight is llm_head else "no",
            f"{to_head:g}",
            *(f"{difference:.0e}" if difference else "0" for difference in differences),
            "no" if encoder.reason else "yes",
        )
    )
    assert to_head == 0
    assert max(differences) <= 1e-5
    assert relative(packed, plain) <= PROBE_TOLERANCE["float32"]
    # Nothing above would show if all texts had one embedding.
    assert relative(alone[1:], alone[:-1]) > 0.1
