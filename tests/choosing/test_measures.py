"""What embeddings are asked: against the definition, spelled out."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.choosing.measures import pair_shares, reciprocal_ranks, topic_ranks, unit

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, count: int, width: int = 8) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


@given(seed=SEEDS, count=st.integers(2, 12))
def test_pairs_are_held_against_all_others(seed: int, count: int) -> None:
    first, second = drawn(seed, count), drawn(seed + 1, count)
    found = pair_shares(first, second)
    texts = [*enumerate(first), *enumerate(second)]
    pairs = itertools.combinations(texts, 2)
    others = [a @ b for (i, a), (j, b) in pairs if i != j]
    for i in range(count):
        nearer = sum(cosine > first[i] @ second[i] for cosine in others)
        expected = np.log((len(others) + 1) / (nearer + 1)) / np.log(len(others) + 1)
        assert found[i] == pytest.approx(expected)


@given(seed=SEEDS, count=st.integers(2, 12))
def test_queries_are_counted_one_by_one(seed: int, count: int) -> None:
    queries, passages = drawn(seed, count), drawn(seed + 1, count)
    for i, share in enumerate(reciprocal_ranks(queries, passages)):
        own = queries[i] @ passages[i]
        assert share == 1 / (1 + sum(queries[i] @ p > own + 1e-12 for p in passages))


@given(seed=SEEDS, topics=st.integers(2, 5), each=st.integers(2, 6))
def test_a_text_does_not_vote_for_its_own_topic(seed: int, topics: int, each: int) -> None:
    numbers = np.tile(np.arange(topics), each)
    rows = drawn(seed, len(numbers))
    found = topic_ranks(rows, numbers)
    for i, right in enumerate(numbers):
        cosines = []
        for topic in range(topics):
            members = [j for j in range(len(rows)) if numbers[j] == topic and j != i]
            cosines.append(rows[i] @ unit(rows[members].sum(axis=0, keepdims=True))[0])
        assert found[i] == 1 / (1 + sum(c > cosines[right] + 1e-12 for c in cosines))


@pytest.mark.parametrize("measure", [pair_shares, reciprocal_ranks])
def test_what_belongs_together_and_is_alike_is_found(measure) -> None:  # type: ignore[no-untyped-def]
    rows = drawn(0, 40, 64)
    assert (measure(rows, rows) == 1).all()
    # And what is drawn at random is not.
    assert measure(rows, drawn(1, 40, 64)).mean() < 0.3


def test_topics_that_are_apart_are_all_found() -> None:
    numbers = np.repeat(np.arange(4), 5)
    assert (topic_ranks(unit(np.eye(8)[numbers] + 0.1 * drawn(0, 20)), numbers) == 1).all()
    chance = np.mean([(topic_ranks(drawn(seed, 20), numbers) == 1).mean() for seed in range(200)])
    assert abs(chance - 0.25) < 0.08


@given(seed=SEEDS)
def test_order_counts_and_not_how_far_apart(seed: int) -> None:
    first, second = drawn(seed, 20), drawn(seed + 1, 20)
    # All alike in one direction, as raw embeddings are: smaller differences in the same order.
    aside = np.full((20, 1), 3.0)
    closer = [unit(np.hstack([side, aside])) for side in (first, second)]
    for measure in (pair_shares, reciprocal_ranks):
        np.testing.assert_allclose(measure(*closer), measure(first, second))


def test_a_row_of_zeros_stays_one() -> None:
    rows = unit(np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32))
    assert rows.tolist() == [[0.0, 0.0], [0.6, 0.8]]
