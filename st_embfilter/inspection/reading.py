"""What the figures of a report say, in plain words.

The first five findings are the paper's three steps (arXiv 2606.07502), the others what they come
to. A threshold is a matter of judgement, so every finding gives its figures.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from st_embfilter.inspection.figures import Inspection
from st_embfilter.spectral.bands import AUTO

Verdict = Literal["holds", "in part", "does not hold"]

# So many times what chance gives: clearly so, or somewhat so.
CLEAR, SOME = 10, 3
# So many times the density of the kept directions, or the shift of random tokens.
DENSE, DENSER, MORE = 2, 1.2, 1.2
# A change of a share that is more than a few tokens' accident.
NOTICED = 0.01
# Embeddings of unrelated texts that are so alike share a common part worth removing.
ALIKE, LESS_ALIKE = 0.2, 0.05
# So many times more is left of what tells texts apart than of what they share: the edge gains 3
# points at 5.2, and hardly any at 1.2 (docs/research/inspect.md, docs/research/auto.md).
SELECTIVE, SOMEWHAT = 2, 1.5


@dataclass(frozen=True)
class Finding:
    """One thing that the figures say.

    Attributes:
        step: The paper's step that it belongs to, 1 to 3, or 0.
        claim: What may hold.
        verdict: Whether it does.
        text: Why, and what follows.
        figures: What it rests on.
    """

    step: int
    claim: str
    verdict: Verdict
    text: str
    figures: dict[str, float]


def read(inspection: Inspection) -> list[Finding]:
    """All findings, the conclusion last."""
    near = _read_frequent(inspection)
    average = _read_average_token(inspection)
    shifts = _read_shifts(inspection)
    lowered = _read_lowered(inspection)
    own = _read_own(inspection)
    alike = _read_alike(inspection)
    selective = _read_selective(inspection)
    conclusion = _conclude(inspection, near, lowered, alike, selective)
    return [near, average, shifts, lowered, own, alike, selective, conclusion]


def _read_frequent(inspection: Inspection) -> Finding:
    """Step 1: raw embeddings lie near frequent tokens."""
    chance = inspection.most_frequent / inspection.unembedding["shape"][0]
    share = inspection.by_logit.frequent.before
    return Finding(
        1,
        "Without the filter, embeddings lie near frequent tokens",
        _grade(share / chance, CLEAR, SOME),
        f"Of an embedding's {inspection.top} top tokens by logit, {share:.0%} are among the "
        f"{inspection.most_frequent:,} most frequent; by chance it would be {chance:.0%}. By "
        f"cosine with the rows of W_U it is {inspection.by_cosine.frequent.before:.0%}. "
        f"(Frequencies: {inspection.distribution}.)",
        {
            "share": share,
            "chance": chance,
            "share by cosine": inspection.by_cosine.frequent.before,
        },
    )


def _read_average_token(inspection: Inspection) -> Finding:
    """Step 2: the edge spectrum carries the average token."""
    width = len(inspection.singular_values)
    part = 1 - len(inspection.kept) / width
    carried = 1 - sum(inspection.energy.average_token[index] for index in inspection.kept)
    times = carried * (1 - part) / (part * (1 - carried))
    mean = 1 - sum(inspection.energy.mean_embedding[index] for index in inspection.kept)
    return Finding(
        2,
        "The directions that the filter removes carry the average token",
        _grade(times, DENSE, DENSER),
        f"They are {part:.0%} of all directions and carry {carried:.0%} of the average token's "
        f"energy: a removed direction {times:.1f} times what a kept one does. Of the embeddings' "
        f"mean they carry {mean:.0%}.",
        {"share": carried, "share of the directions": part, "share of the mean": mean},
    )


def _read_shifts(inspection: Inspection) -> Finding:
    """Step 2, by Logit Spectroscopy: the edge spectrum moves frequent tokens more than others."""
    kept = set(inspection.kept)
    removed_by, kept_by = (
        {
            tokens.name: fmean(
                shift
                for index, shift in enumerate(tokens.by_direction)
                if (index in kept) == inside
            )
            for tokens in inspection.token_sets
        }
        for inside in (False, True)
    )
    frequent, others = removed_by["frequent"], removed_by["random"]
    verdict = _grade(frequent / kept_by["frequent"], DENSE, DENSER)
    if verdict == "holds" and frequent < MORE * others:
        verdict = "in part"
    what = "more than" if frequent >= MORE * others else "no more than"
    return Finding(
        2,
        "Removing one of these directions moves the logits of frequent tokens most",
        verdict,
        f"One removed direction shifts them by {frequent:.2%} of their size on average, one kept "
        f"direction by {kept_by['frequent']:.2%}. Random tokens are shifted by {others:.2%}, rare "
        f"ones by {removed_by['rare']:.2%}: frequent tokens {what} random ones. A shift that all "
        f"tokens share changes no token's place.",
        {
            "frequent, removed": frequent,
            "frequent, kept": kept_by["frequent"],
            "random, removed": others,
            "rare, removed": removed_by["rare"],
        },
    )


def _read_lowered(inspection: Inspection) -> Finding:
    """Step 3: filtering lowers frequent tokens."""
    change = inspection.by_logit.frequent
    fall = {
        tokens.name: sum(
            shift.mean
            for band, shift in zip(inspection.bands, tokens.by_band, strict=True)
            if band.indices != inspection.kept
        )
        for tokens in inspection.token_sets
    }
    against = fall["frequent"] - fall["random"]
    verdict: Verdict = "does not hold"
    if change.after < change.before - NOTICED and against < 0:
        verdict = "holds" if change.after <= change.before / 2 else "in part"
    return Finding(
        3,
        "The filter lowers frequent tokens",
        verdict,
        f"Their share of the top tokens goes from {change.before:.0%} to {change.after:.0%}. The "
        f"filter changes their logits by {fall['frequent']:+.2f} on average, random tokens' by "
        f"{fall['random']:+.2f}, rare ones' by {fall['rare']:+.2f}: against random tokens, "
        f"frequent ones {'fall' if against < 0 else 'rise'} by {abs(against):.2f}.",
        {"share before": change.before, "share after": change.after, "against random": against},
    )


def _read_own(inspection: Inspection) -> Finding:
    """Step 3: filtering raises informative tokens."""
    changes = inspection.by_logit.own, inspection.by_cosine.own
    risen = sum(change.after > change.before + NOTICED for change in changes)
    verdicts: tuple[Verdict, ...] = ("does not hold", "in part", "holds")
    logit, cosine = changes
    return Finding(
        3,
        "The filter raises the texts' own words",
        verdicts[risen],
        f"Tokens that begin a word of the text, and aren't frequent, go from {logit.before:.1%} to "
        f"{logit.after:.1%} of the top tokens by logit, and from {cosine.before:.1%} to "
        f"{cosine.after:.1%} by cosine. A logit also depends on the length of the token's row, "
        f"which the filter shortens for some tokens more than for others.",
        {
            "by logit before": logit.before,
            "by logit after": logit.after,
            "by cosine before": cosine.before,
            "by cosine after": cosine.after,
        },
    )


def _read_alike(inspection: Inspection) -> Finding:
    """Whether embeddings of different texts are alike, and become less so."""
    change = inspection.mean_cosine
    verdict: Verdict = "does not hold"
    if change.before - change.after >= LESS_ALIKE:
        verdict = "holds" if change.before >= ALIKE else "in part"
    spread = inspection.spread
    text = (
        f"The mean cosine of different texts goes from {change.before:.2f} to {change.after:.2f}; "
        f"they vary over {spread.before:.0f} directions in effect without the filter, over "
        f"{spread.after:.0f} with it"
    )
    if change.before < ALIKE:
        text += ". There is hardly a common part to remove"
    return Finding(
        0,
        "Embeddings of different texts are alike, and the filter makes them less so",
        verdict,
        f"{text}.",
        {
            "before": change.before,
            "after": change.after,
            "spread before": spread.before,
            "spread after": spread.after,
        },
    )


def _read_selective(inspection: Inspection) -> Finding:
    """Whether the filter tells what differs between texts from what they all share."""
    shared, differs = inspection.mean_left, inspection.variance_left
    times = differs / max(shared, 1e-12)
    return Finding(
        0,
        "The filter removes what all texts share rather than what tells them apart",
        _grade(times, SELECTIVE, SOMEWHAT),
        f"Of the embeddings' variance it leaves {times:.1f} times the part that it leaves of their "
        f"mean ({differs:.0%} by {shared:.0%}).",
        {"mean left": shared, "variance left": differs},
    )


def _conclude(
    inspection: Inspection, near: Finding, lowered: Finding, alike: Finding, selective: Finding
) -> Finding:
    """Whether the filter is to be expected to help."""
    rests_on = [alike, selective]
    if inspection.band != AUTO:
        rests_on += [near, lowered]  # The paper's explanation; auto doesn't need it to hold.
    verdict: Verdict = "in part"
    text = "Not all that the method rests on is found in this model."
    if all(finding.verdict == "holds" for finding in rests_on):
        verdict = "holds"
        text = (
            "Embeddings of different texts are near each other, and the filter removes rather what "
            "they share."
        )
    elif alike.verdict == "does not hold":
        # Frequent tokens do harm as far as all texts share them.
        verdict = "does not hold"
        text = (
            "Embeddings of different texts aren't alike, or stay so: the filter has no common part "
            "to remove, only what tells texts apart."
        )
    elif selective.verdict == "does not hold":
        verdict = "does not hold"
        text = (
            "The filter removes about as much of what tells texts apart as of what they share. The "
            "band auto weighs each direction by that (--band auto)."
        )
    if inspection.prompt is None:
        text += (
            " This model was trained to compare texts: its embeddings needn't lie in the space of "
            "its word embeddings, which stand for W_U here."
        )
    return Finding(
        0,
        "The filter is to be expected to help",
        verdict,
        f"{text} This is what the method's explanation predicts. What the filter is worth is "
        f"measured by st-embfilter evaluate.",
        {},
    )


def _grade(value: float, holds: float, in_part: float) -> Verdict:
    if value >= holds:
        return "holds"
    return "in part" if value >= in_part else "does not hold"
