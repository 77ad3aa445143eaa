"""What embeddings are asked: against the definition, spelled out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.choosing.measures import nearest_topic, reciprocal_ranks, unit

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, count: int, width: int = 8) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


@given(seed=SEEDS, pairs=st.integers(1, 20), others=st.integers(0, 20))
def test_ranks_are_counted_one_by_one(seed: int, pairs: int, others: int) -> None:
    rows = drawn(seed, 2 * pairs + others)
    asked, wanted = np.arange(pairs), np.arange(pairs, 2 * pairs)
    found = reciprocal_ranks(rows, asked, wanted, np.arange(len(rows)))
    for a, w, share in zip(asked, wanted, found, strict=True):
        nearer = [
            r for r in range(len(rows)) if r not in (a, w) and rows[a] @ rows[r] > rows[a] @ rows[w]
        ]
        assert share == 1 / (1 + len(nearer))


@given(seed=SEEDS, pairs=st.integers(2, 20))
def test_what_is_the_same_is_found_first(seed: int, pairs: int) -> None:
    rows = drawn(seed, pairs)
    both = np.concatenate([rows, 3 * rows])
    asked = np.arange(pairs)
    among = np.arange(2 * pairs)
    assert (reciprocal_ranks(unit(both), asked, asked + pairs, among) == 1).all()
    # Its own row counts for nothing, and those that aren't among the others neither.
    assert (reciprocal_ranks(unit(both), asked, asked + pairs, asked + pairs) == 1).all()


@given(seed=SEEDS, topics=st.integers(2, 5), each=st.integers(2, 6))
def test_a_text_does_not_vote_for_its_own_topic(seed: int, topics: int, each: int) -> None:
    numbers = np.tile(np.arange(topics), each)
    rows = drawn(seed, len(numbers))
    found = nearest_topic(rows, numbers)
    for i, right in enumerate(numbers):
        cosines = []
        for topic in range(topics):
            members = [j for j in range(len(rows)) if numbers[j] == topic and j != i]
            cosines.append(rows[i] @ unit(rows[members].sum(axis=0, keepdims=True))[0])
        assert found[i] == (np.argmax(cosines) == right)


def test_topics_that_are_apart_are_all_found() -> None:
    numbers = np.repeat(np.arange(4), 5)
    rows = unit(np.eye(8)[numbers] + 0.1 * drawn(0, 20))
    assert (nearest_topic(rows, numbers) == 1).all()
    # And of embeddings that say nothing, about one in so many.
    chance = np.mean([nearest_topic(drawn(seed, 20), numbers).mean() for seed in range(200)])
    assert abs(chance - 0.25) < 0.08


def test_a_row_of_zeros_stays_one() -> None:
    rows = unit(np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32))
    assert rows.tolist() == [[0.0, 0.0], [0.6, 0.8]]
