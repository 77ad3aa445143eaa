"""The report's reading: what each finding says of the figures."""

from dataclasses import replace

import pytest

from st_embfilter.inspection.figures import Change, Inspection, Shares
from st_embfilter.inspection.reading import Finding, read
from support.models import WIDTH


def finding(inspection: Inspection, claim: str) -> Finding:
    (found,) = (finding for finding in read(inspection) if claim in finding.claim)
    return found


@pytest.mark.parametrize(
    ("frequent", "cosine", "kept", "near", "lowered", "alike", "selective", "conclusion"),
    [
        ((0.4, 0.1), (0.9, 0.5), 0.2, *["holds"] * 5),
        ((0.4, 0.3), (0.9, 0.5), 0.2, "holds", "in part", "holds", "holds", "in part"),
        ((0.15, 0.05), (0.9, 0.5), 0.2, "in part", "holds", "holds", "holds", "in part"),
        ((0.01, 0.01), (0.1, 0.1), 0.2, *["does not hold"] * 3, "holds", "does not hold"),
        (
            (0.4, 0.1),
            (0.06, 0.07),
            0.2,
            "holds",
            "holds",
            "does not hold",
            "holds",
            "does not hold",
        ),
        ((0.4, 0.5), (0.15, 0.05), 0.2, "holds", "does not hold", "in part", "holds", "in part"),
        ((0.4, 0.1), (0.9, 0.5), 0.3, *["holds"] * 3, "in part", "in part"),
        ((0.4, 0.1), (0.9, 0.5), 0.4, *["holds"] * 3, *["does not hold"] * 2),
    ],
)
def test_reading(
    inspection: Inspection,
    frequent: tuple[float, float],
    cosine: tuple[float, float],
    kept: float,
    near: str,
    lowered: str,
    alike: str,
    selective: str,
    conclusion: str,
) -> None:
    """With a share of the mean's energy left, and half of the variance."""
    # The tail end lowers the frequent tokens alone.
    sets = [
        replace(
            tokens,
            by_band=[
                replace(shift, mean=-3.0 if (tokens.name, number) == ("frequent", 2) else -1.0)
                for number, shift in enumerate(tokens.by_band)
            ],
        )
        for tokens in inspection.token_sets
    ]
    changed = replace(
        inspection,
        token_sets=sets,
        by_logit=replace(inspection.by_logit, frequent=Change(*frequent)),
        mean_cosine=Change(*cosine),
        mean_left=kept,
        variance_left=0.5,
    )
    assert finding(changed, "what all texts share").verdict == selective
    assert finding(changed, "lie near frequent").verdict == near
    assert finding(changed, "lowers frequent").verdict == lowered
    assert finding(changed, "lowers frequent").figures["against random"] == pytest.approx(-2)
    assert finding(changed, "are alike").verdict == alike
    assert finding(changed, "expected to help").verdict == conclusion


@pytest.mark.parametrize(
    ("logit", "cosine", "verdict"),
    [
        ((0.1, 0.2), (0.1, 0.2), "holds"),
        ((0.2, 0.1), (0.1, 0.2), "in part"),
        ((0.2, 0.1), (0.1, 0.105), "does not hold"),
    ],
)
def test_reading_of_own_words(
    inspection: Inspection, logit: tuple[float, float], cosine: tuple[float, float], verdict: str
) -> None:
    same = Change(0.1, 0.1)
    changed = replace(
        inspection,
        by_logit=Shares(same, Change(*logit)),
        by_cosine=Shares(same, Change(*cosine)),
    )
    assert finding(changed, "own words").verdict == verdict


def test_reading_of_the_spectrum(inspection: Inspection) -> None:
    half = WIDTH // 2
    edges = [1.0 if index not in inspection.kept else 0.0 for index in range(WIDTH)]
    share, even = [edge / half for edge in edges], [1 / WIDTH] * WIDTH

    def verdict(
        average_token: list[float], frequent: list[float], random: list[float]
    ) -> list[str]:
        lines = {"frequent": frequent, "rare": even, "random": random}
        changed = replace(
            inspection,
            energy=replace(inspection.energy, average_token=average_token),
            token_sets=[
                replace(tokens, by_direction=lines[tokens.name]) for tokens in inspection.token_sets
            ],
        )
        return [f.verdict for f in read(changed) if f.step == 2]

    mixed = [0.9 * one + 0.1 * other for one, other in zip(share, even, strict=True)]
    assert verdict(mixed, mixed, even) == ["holds", "holds"]
    assert verdict(even, mixed, mixed) == ["does not hold", "in part"]
    assert verdict(even, even, even) == ["does not hold", "does not hold"]
    slightly = [0.2 * one + 0.8 * other for one, other in zip(share, even, strict=True)]
    assert verdict(slightly, even, even)[0] == "in part"


def test_an_embedding_model_is_told_apart(inspection: Inspection) -> None:
    assert "was trained to compare" not in read(inspection)[-1].text
    assert "was trained to compare" in read(replace(inspection, prompt=None))[-1].text


def test_auto_needs_no_frequent_tokens(inspection: Inspection) -> None:
    """The paper's explanation needn't hold for it."""
    changed = replace(
        inspection,
        band="auto",
        by_logit=replace(inspection.by_logit, frequent=Change(0.01, 0.01)),
        mean_cosine=Change(0.9, 0.1),
        mean_left=0.2,
        variance_left=0.9,
    )
    assert finding(changed, "expected to help").verdict == "holds"
    assert finding(replace(changed, band="edge"), "expected to help").verdict == "in part"
    assert finding(replace(changed, mean_left=0.8), "expected to help").verdict == "does not hold"
