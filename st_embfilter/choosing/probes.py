"""The probes: short labelled sets, written for this package, on which settings are compared."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("probe_sets")
# Of a text, so that either half says something.
FEWEST_WORDS = 6
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Probes:
    """What a setting is tried on, several sets of each kind. No text is there twice.

    Attributes:
        sentences: Pairs that say the same in other words.
        topics: Texts, each with its topic's name, about as many a topic.
        search: Queries, each with the passage that answers it.
    """

    sentences: list[Pairs]
    topics: list[Pairs]
    search: list[Pairs]

    @property
    def texts(self) -> list[str]:
        """All texts."""
        topics = [text for pairs in self.topics for text, _ in pairs]
        others = (*self.sentences, *self.search)
        return topics + [text for pairs in others for pair in pairs for text in pair]


@cache
def read_probes() -> Probes:
    """Those that come with this package: a folder a kind, a file a set."""
    return Probes(
        sentences=_sets("sentences", "text", "same"),
        topics=_sets("topics", "text", "topic"),
        search=_sets("search", "query", "passage"),
    )


def _sets(kind: str, first: str, second: str) -> list[Pairs]:
    sets = []
    for file in sorted((FOLDER / kind).glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        sets.append([(row[first], row[second]) for row in rows])
    return sets


def halves(texts: list[str]) -> Pairs:
    """Texts cut in the middle, between words; those that are too short are left out."""
    split = [text.split() for text in texts]
    return [
        (" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :]))
        for words in split
        if len(words) >= FEWEST_WORDS
    ]
