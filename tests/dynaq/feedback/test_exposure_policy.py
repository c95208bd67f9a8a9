"""The exposure policy: what it shows, and whether the probabilities that it logs are those with which it shows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dynaq.errors import InputError
from dynaq.feedback.exposure_policy import POOL, explore, rank_probabilities


def by_enumeration(pool: int, sharpness: float) -> np.ndarray:
    """The same matrix from the definition: all orders with their Plackett–Luce probabilities."""
    weights = np.arange(1, pool + 1, dtype=np.float64) ** -sharpness
    table = np.zeros((pool, pool))
    for order in itertools.permutations(range(pool)):
        left, probability = weights.sum(), 1.0
        for place in order:
            probability *= weights[place] / left
            left -= weights[place]
        for rank, place in enumerate(order):
            table[place, rank] += probability
    return table


@pytest.mark.parametrize("sharpness", [0.0, 0.7, 2.0, 4.0])
def test_probabilities_are_those_of_the_definition(sharpness: float) -> None:
    np.testing.assert_allclose(rank_probabilities(6, sharpness), by_enumeration(6, sharpness), rtol=1e-9)


def test_every_rank_shows_one_job_and_every_job_has_one_rank() -> None:
    table = rank_probabilities(POOL)
    np.testing.assert_allclose(table.sum(0), 1.0, atol=1e-9)
    np.testing.assert_allclose(table.sum(1), 1.0, atol=1e-9)
    assert (table > 0).all()


def test_the_logged_probability_is_the_frequency_with_which_a_job_is_shown_there() -> None:
    ranking = [f"j{i}" for i in range(8)]
    rng = np.random.default_rng(3)
    draws = 4000
    times: dict[tuple[str, int], int] = {}
    logged: dict[tuple[str, int], float] = {}
    for _ in range(draws):
        shown, propensities = explore(ranking, 3, rng)
        assert len(set(shown)) == 3
        for rank, (job, p) in enumerate(zip(shown, propensities, strict=True)):
            times[job, rank] = times.get((job, rank), 0) + 1
            logged[job, rank] = p
    for key, p in logged.items():
        assert times[key] / draws == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / draws))


def test_the_list_stays_close_to_the_ranking() -> None:
    shown_of_the_best = rank_probabilities(POOL)[:10, :10].sum() / 10
    assert shown_of_the_best == pytest.approx(0.70, abs=0.01)
    assert rank_probabilities(POOL)[0, 0] == pytest.approx(0.61, abs=0.01)


def test_infinite_sharpness_shows_the_ranking_itself() -> None:
    assert explore(["a", "b", "c"], 2, np.random.default_rng(0), math.inf) == (("a", "b"), (1.0, 1.0))


def test_a_short_ranking_is_shown_whole_and_an_empty_one_is_empty() -> None:
    shown, propensities = explore(["a", "b"], 10, np.random.default_rng(0))
    assert sorted(shown) == ["a", "b"]
    assert len(propensities) == 2
    assert explore([], 10, np.random.default_rng(0)) == ((), ())


def test_the_same_seed_shows_the_same_list() -> None:
    ranking = [f"j{i}" for i in range(POOL + 20)]
    once, again = (explore(ranking, 10, np.random.default_rng(5)) for _ in range(2))
    assert once == again
    assert set(once[0]) <= set(ranking[:POOL])


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        explore(["a"], 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="sharpness -1"):
        explore(["a"], 1, np.random.default_rng(0), -1.0)
    with pytest.raises(InputError, match="sharpness nan"):
        explore(["a"], 1, np.random.default_rng(0), math.nan)
