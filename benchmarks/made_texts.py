"""Texts where only their length matters."""

import numpy as np

WORDS = ["the", "man", "woman", "dog", "is", "runs", "over", "house", "river", "green", "old", "to"]


def made_texts(count: int) -> list[str]:
    """So many texts of 6 to 23 words."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(6, 24))) for _ in range(count)]
