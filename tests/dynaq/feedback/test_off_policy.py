"""Off-policy evaluation on made-up people whose wishes are known, so that every ranking's true value is, too."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from dynaq.feedback.exposure_policy import POOL, rank_probabilities
from dynaq.feedback.off_policy import (
    OffPolicyEvaluation,
    RankingPolicy,
    SlateLog,
    evaluate,
    places_in,
)

PEOPLE, LISTS, JOBS, K = 100, 5, 150, 10
EXAMINED = 1.0 / np.log2(np.arange(2, K + 2))  # how likely a rank is looked at


@dataclass(frozen=True)
class World:
    """A log of lists drawn around one ranking, a new ranking, and what each is really worth per list."""

    log: SlateLog
    new: RankingPolicy
    current: RankingPolicy
    worth: float
    worth_now: float

    def evaluate(self) -> OffPolicyEvaluation:
        return evaluate(self.log, self.new, self.current)


def world(seed: int, noise_now: float, noise_new: float, sharpness: float = 2.0, applicants: int = PEOPLE) -> World:
    """Rankings by wishes plus noise, in standard deviations of the wishes: the more noise, the worse."""
    rng = np.random.default_rng(seed)
    wishes = rng.beta(0.5, 3, size=(applicants, JOBS))

    def ranked(noise: float) -> np.ndarray:
        seen = wishes + noise * wishes.std() * rng.standard_normal(wishes.shape)
        return np.argsort(-seen, axis=1)[:, :POOL]

    now, new = ranked(noise_now), ranked(noise_new)
    people = np.repeat(np.arange(applicants), LISTS)
    place = np.arange(1, POOL + 1)
    if math.isinf(sharpness):
        drawn = np.broadcast_to(place - 1, (len(people), POOL))[:, :K]
    else:
        race = np.log(rng.exponential(size=(len(people), POOL))) + sharpness * np.log(place)
        drawn = np.argsort(race, axis=1)[:, :K]
    shown = now[people[:, None], drawn]
    propensities = rank_probabilities(POOL, sharpness)[drawn, np.arange(K)]
    rewards = (rng.random(shown.shape) < wishes[people[:, None], shown] * EXAMINED).astype(float)

    def worth(ranking: np.ndarray) -> float:
        by_rank = np.take_along_axis(wishes, ranking, 1) @ rank_probabilities(POOL)[:, :K]
        return float((by_rank * EXAMINED).sum(1).mean())

    return World(
        SlateLog(people, shown, propensities, rewards),
        RankingPolicy(new[people]),
        RankingPolicy(now[people], sharpness, np.ones(len(people), bool)),
        worth(new),
        worth(now),
    )


@cache
def repeated(noise_now: float = 0.5, noise_new: float = 0.3) -> list[tuple[World, OffPolicyEvaluation]]:
    worlds = [world(seed, noise_now, noise_new) for seed in range(40)]
    return [(one, one.evaluate()) for one in worlds]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["ips", "snips", "dr"])
def test_intervals_hold_the_true_value_about_as_often_as_they_say(estimator: str) -> None:
    held = [found.new[estimator].low <= one.worth <= found.new[estimator].high for one, found in repeated()]
    assert np.mean(held) >= 0.87


@pytest.mark.slow
def test_the_interval_of_the_difference_holds_the_true_difference() -> None:
    held = []
    for one, found in [*repeated(), *repeated(1.0, 0.3)]:
        difference = found.difference["dr"]
        held.append(difference.low <= one.worth - one.worth_now <= difference.high)
    assert np.mean(held) >= 0.87


@pytest.mark.slow
def test_thirty_people_are_enough_for_the_interval_of_the_difference() -> None:
    held = []
    for seed in range(150):
        one = world(seed, 0.5, 0.3, applicants=30)
        difference = one.evaluate().difference["dr"]
        held.append(difference.low <= one.worth - one.worth_now <= difference.high)
    assert np.mean(held) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("noises", [(0.5, 0.3), (1.0, 0.3)])
def test_doubly_robust_varies_less_and_errs_less_than_weighting_alone(noises: tuple[float, float]) -> None:
    errors = {
        name: np.array([found.new[name].value - one.worth for one, found in repeated(*noises)])
        for name in ("ips", "dr")
    }
    assert errors["dr"].std() < errors["ips"].std()
    assert np.sqrt((errors["dr"] ** 2).mean()) < 0.9 * np.sqrt((errors["ips"] ** 2).mean())


@pytest.mark.slow
def test_what_serves_now_is_worth_what_its_lists_earned() -> None:
    one, found = repeated()[0]
    for estimate in found.current.values():
        assert estimate.value == pytest.approx(one.log.rewards.sum() / len(one.log))


def test_by_hand() -> None:
    """Two places, so that list and weights can be worked out: P(first place at rank 1) = 1 / (1 + 2^-2) = 0.8."""
    people = np.arange(32)
    shown = np.tile([[0], [0], [0], [1]], (8, 1))
    log = SlateLog(people, shown, np.where(shown == 0, 0.9, 0.1), (shown == 1).astype(float))
    turned = RankingPolicy(np.tile([1, 0], (32, 1)))
    kept = RankingPolicy(np.tile([0, 1], (32, 1)))
    found = evaluate(log, turned, kept)
    # Weights 0.2/0.9 for job 0, and 0.8/0.1 = 8 for job 1, clipped at sqrt(32).
    clip, low = math.sqrt(32), 0.2 / 0.9
    assert found.new["ips"].value == pytest.approx(clip / 4)
    assert found.new["snips"].value == pytest.approx(clip / (clip + 3 * low))
    assert found.current["ips"].value == pytest.approx(0.2 / 0.1 / 4)
    assert found.coverage == pytest.approx((clip + 3 * low) / 4)


@pytest.mark.slow
def test_a_much_better_ranking_is_called_better_and_a_much_worse_one_worse() -> None:
    found = [one.verdict for _, one in repeated(1.0, 0.3)]
    assert found.count("better") > 20
    assert "worse" not in found
    assert [one.verdict for _, one in repeated(0.3, 1.0)].count("worse") > 20


def test_a_log_without_exploration_cannot_tell() -> None:
    found = world(0, 1.0, 0.3, sharpness=math.inf).evaluate()
    assert found.verdict == "cannot tell"
    assert "without exploration" in found.reason


def test_a_new_policy_that_shows_what_was_never_shown_cannot_be_told() -> None:
    one = world(0, 0.5, 0.3)
    stranger = RankingPolicy(one.new.rankings + JOBS)
    found = evaluate(one.log, stranger, one.current)
    assert (found.verdict, found.coverage) == ("cannot tell", 0.0)
    assert "0.0% of what the new run would show" in found.reason


def test_too_few_people_make_no_number() -> None:
    one = world(0, 0.5, 0.3)
    few = one.log.applicants < 29
    log = SlateLog(*(part[few] for part in (one.log.applicants, one.log.shown, one.log.propensities, one.log.rewards)))
    now = replace(one.current, rankings=one.current.rankings[few], as_logged=np.ones(few.sum(), bool))
    found = evaluate(log, RankingPolicy(one.new.rankings[few]), now)
    assert found.verdict == "cannot tell"
    assert not found.difference
    assert "29 applicants, and 30 are needed" in found.reason


def test_lists_and_rankings_of_uneven_length_are_weighted_by_their_own_probabilities() -> None:
    rankings = np.array([[5, 6, 7], [5, 6, -1], [5, -1, -1]] * 10)
    log = SlateLog(
        np.arange(30),
        np.array([[5, 6], [5, 6], [5, -1]] * 10),
        np.full((30, 2), 0.5),
        np.tile([[1.0, 0.0]], (30, 1)),
    )
    probabilities = RankingPolicy(rankings).probabilities(log)
    three, two = rank_probabilities(3), rank_probabilities(2)
    np.testing.assert_allclose(probabilities[:3], [[three[0, 0], three[1, 1]], [two[0, 0], two[1, 1]], [1.0, 0.0]])
    assert np.isfinite(evaluate(log, RankingPolicy(rankings), RankingPolicy(rankings)).new["dr"].value)


def test_places() -> None:
    rankings = np.array([[4, 2, -1], [7, 8, 9]])
    np.testing.assert_array_equal(
        places_in(rankings, np.array([[2, 4, 9, -1], [9, 2, 7, 8]])), [[1, 0, 3, 3], [2, 3, 0, 1]]
    )
