"""The probes: short labelled sets, written for this package, on which settings are compared."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("probe_texts")


@dataclass(frozen=True)
class Probes:
    """What a setting is tried on; no text is there twice.

    Attributes:
        sentences: Pairs that say the same in other words.
        topics: Texts of many kinds, each with its topic's name; a dozen a topic.
        searches: Queries, each with the passage that answers it, in groups of four on one subject.
    """

    sentences: list[tuple[str, str]]
    topics: list[tuple[str, str]]
    searches: list[tuple[str, str]]

    @property
    def texts(self) -> list[str]:
        """All texts: both sides of the sentences, the topics', queries, passages."""
        first, second = zip(*self.sentences, strict=True)
        queries, passages = zip(*self.searches, strict=True)
        return [*first, *second, *(text for text, _ in self.topics), *queries, *passages]


def read_probes() -> Probes:
    """Those that come with this package."""
    return Probes(
        sentences=[(row["text"], row["same"]) for row in _rows("sentences")],
        topics=[(row["text"], row["topic"]) for row in _rows("topics")],
        searches=[(row["query"], row["passage"]) for row in _rows("search")],
    )


def _rows(name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def halves(texts: list[str]) -> list[tuple[str, str]]:
    """Texts cut in the middle, between words; those that are too short are left out."""
    split = [text.split() for text in texts]
    return [
        (" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :]))
        for words in split
        if len(words) >= FEWEST_WORDS
    ]


# Of a text, so that either half says something.
FEWEST_WORDS = 6
