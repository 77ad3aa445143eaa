"""The report's figures against direct computation."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.inspection.figures import Inspection
from support.models import WIDTH


def test_figures(inspection: Inspection, tiny: Path, report_texts: Path, tiny_model: Any) -> None:
    raw = SentenceTransformer(modules=list(tiny_model)[:2], device="cpu")
    embeddings = raw.encode(report_texts.read_text().split("\n"), convert_to_tensor=True).double()
    w = torch.cat(list(Unembedding.from_pretrained(tiny).row_blocks())).double()
    v = torch.linalg.svd(w, full_matrices=False)[2]
    kept = v[WIDTH // 4 : 3 * WIDTH // 4]
    assert inspection.kept == list(range(WIDTH // 4, 3 * WIDTH // 4))
    assert inspection.texts == 20 and len(inspection.samples) < 20
    for states, cosine in (
        (embeddings, inspection.mean_cosine.before),
        (embeddings @ kept.T, inspection.mean_cosine.after),
    ):
        cosines = normalize(states, dim=1) @ normalize(states, dim=1).T
        assert cosine == pytest.approx(float(cosines[~torch.eye(20).bool()].mean()), abs=1e-5)
    for states, spread in (
        (embeddings, inspection.spread.before),
        (embeddings @ kept.T, inspection.spread.after),
    ):
        variances = torch.linalg.eigvalsh(torch.cov(normalize(states, dim=1).T))
        assert spread == pytest.approx(float(variances.sum() ** 2 / (variances**2).sum()), rel=1e-4)
    assert inspection.weights == [float(index in inspection.kept) for index in range(WIDTH)]
    centred = embeddings - embeddings.mean(dim=0)
    mean = embeddings.mean(dim=0)
    assert inspection.mean_left == pytest.approx(
        float((mean @ kept.T).square().sum() / mean.square().sum()), abs=1e-5
    )
    assert inspection.variance_left == pytest.approx(
        float((centred @ kept.T).square().sum() / centred.square().sum()), abs=1e-5
    )
    for shares in asdict(inspection.energy).values():
        assert len(shares) == WIDTH and sum(shares) == pytest.approx(1)

    before, after = embeddings @ w.T, embeddings @ kept.T @ kept @ w.T
    first = inspection.samples[0]
    for logits, tokens in ((before, first.by_logit.before), (after, first.by_logit.after)):
        assert [token.id for token in tokens] == logits[0].topk(10).indices.tolist()
    names = [band.name for band in inspection.bands]
    assert names == ["head end", "kept", "tail end"]
    for tokens in inspection.token_sets:
        # All bands removed is all of the logits removed.
        total = sum(shift.mean for shift in tokens.by_band)
        assert total == pytest.approx(-tokens.mean_logit, rel=1e-4)
    frequent, rare, _ = inspection.token_sets
    assert frequent.examples[0].rank == 1
    assert min(token.rank for token in rare.examples) > frequent.size
    for direction in inspection.directions:
        along = int((w @ v[direction.index]).abs().argmax())
        assert along in {direction.along[0].id, direction.against[0].id}
