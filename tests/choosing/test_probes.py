"""The texts that come with the package, and a user's own."""

import re
from collections import Counter

import pytest

from st_embfilter.choosing.probes import FEWEST_WORDS, halves, read_probes
from st_embfilter.pipeline.automatic import calibration_texts


def test_every_text_once_and_none_that_auto_was_fitted_on() -> None:
    texts = read_probes().texts
    assert len(texts) == len(set(texts)) > 1500
    assert all(text == text.strip() and text for text in texts)
    assert not set(texts) & set(calibration_texts(None).texts)


def test_sets_of_every_kind() -> None:
    probes = read_probes()
    assert [len(kind) for kind in (probes.sentences, probes.topics, probes.search)] == [2, 3, 2]
    for topics in probes.topics:
        counts = set(Counter(topic for _, topic in topics).values())
        assert len(counts) == 1 and counts <= {10, 12}


@pytest.mark.parametrize("kind", ["sentences", "search"])
def test_what_belongs_together_shares_few_words(kind: str) -> None:
    # Or counting words would do.
    for pairs in getattr(read_probes(), kind):
        shared = [len(words(a) & words(b)) / max(1, len(words(a))) for a, b in pairs]
        assert sum(shared) / len(shared) < 0.25


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def test_halves_hold_all_words_once() -> None:
    text = "one two  three four five six seven"
    assert halves([text, "too short"]) == [("one two three", "four five six seven")]
    assert FEWEST_WORDS == 6
