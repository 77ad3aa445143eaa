"""Which setting is taken."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.choosing.trial import Trial, TriedBand, choose, standard_error


def trial(
    shares: list[float], ratio: int = 1, prompt: str = "one", band: TriedBand = "auto"
) -> Trial:
    return Trial(prompt, band, 64 // ratio, ratio, {"sentences": np.array(shares)})


def test_fewer_dimensions_where_the_loss_is_chance() -> None:
    generator = np.random.default_rng(0)
    full = generator.random(400)
    alike = trial(list(full + generator.normal(scale=0.2, size=400) - 0.002), 2)
    worse = trial(list(full - 0.05 + generator.normal(scale=0.2, size=400)), 4)
    best = trial(list(full))
    assert choose([best, alike, worse]) is alike
    assert choose([best, worse]) is best


def test_another_prompt_or_band_must_be_better() -> None:
    best = trial([0.9, 0.8, 0.7])
    for other in (
        trial([0.9, 0.8, 0.69], 4, prompt="two"),
        trial([0.9, 0.8, 0.69], 4, band="edge"),
    ):
        assert choose([best, other]) is best
        assert choose([other, best]) is best


@given(
    shares=st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=1, max_size=8),
)
def test_the_chosen_one_is_within_chance_of_the_best(shares: list[list[float]]) -> None:
    trials = [trial(one, 2**i) for i, one in enumerate(shares)]
    best, chosen = max(trials, key=lambda one: one.total), choose(trials)
    assert best.total - chosen.total <= standard_error(best, chosen) + 1e-9
    assert chosen.dimensions <= best.dimensions or chosen.total >= best.total


def test_scores_and_their_average() -> None:
    one = Trial("a", "edge", 8, 4, {"sentences": np.array([1.0, 0.5]), "topics": np.array([0.0])})
    assert one.scores == {"sentences": 75.0, "topics": 0.0} and one.total == 37.5
