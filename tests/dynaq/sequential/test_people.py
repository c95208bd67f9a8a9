from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dynaq.errors import InputError
from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.sequential.people import (
    DYNAMICS,
    NO_JOB,
    People,
    PersonConfig,
    changed,
    families_of,
    judgement_of_reward,
    similar_rewards,
)

NAMES = ["ann", "bob", "cyd"]
JOBS = 12
FAMILIES = np.arange(JOBS) // 4
EMBEDDING = np.eye(3)[FAMILIES] + 0.1 * np.random.default_rng(0).standard_normal((JOBS, 3))
BASE = np.random.default_rng(1).choice([-0.1, 0.0, 0.5, 1.0], (3, JOBS))
ON = PersonConfig(satiation=0.3, recovery=0.5, drift=0.2, depletion=0.1, patience=2, spread=0.0)


def people(config: PersonConfig, names: list[str] = NAMES, seed: int = 0) -> People:
    return People(config, names, FAMILIES, similar_rewards(EMBEDDING), seed)


def look(who: People, job: int) -> Any:
    return who.look(np.full(3, job), BASE[:, job])


def test_with_every_dynamic_off_each_reward_is_the_judges_to_the_bit() -> None:
    who = people(ON.only())
    for job in range(JOBS):
        assert who.rewards(BASE).tobytes() == BASE.tobytes()
        assert look(who, job).tobytes() == BASE[:, job].tobytes()
        who.end_session()
    assert np.isinf(who.closes).all()


def test_satiation_costs_each_repetition_and_wears_off_by_the_day() -> None:
    who = people(ON.only("satiation"))
    before = who.rewards(BASE)
    look(who, 0)
    look(who, 1)
    tired = who.rewards(BASE)
    assert tired[:, 2:4] == pytest.approx(np.maximum(before[:, 2:4] - 0.6, -0.1))
    assert np.array_equal(tired[:, 4:], before[:, 4:])
    days = who.end_session()
    assert who.satiation[:, 0] == pytest.approx(2 * 0.5**days)


def test_interest_moves_toward_what_was_liked_and_not_toward_what_was_not() -> None:
    who = people(ON.only("drift"))
    base = np.zeros((3, JOBS))
    base[:2, 0], base[2, 0] = (1.0, 0.5), -0.1
    who.look(np.zeros(3, np.int64), base[:, 0])
    now = who.rewards(base)
    similar = similar_rewards(EMBEDDING)[0]
    assert now[0, 1:] == pytest.approx(0.2 * similar[1:])
    assert now[1, 1:] == pytest.approx(0.1 * similar[1:])
    assert np.array_equal(now[2], base[2])
    assert now[0, 1] > now[0, 8]


def test_postings_close_for_good_at_rates_of_their_families() -> None:
    who = people(ON.only("depletion"))
    left = [who.open.sum()]
    for _ in range(60):
        who.end_session()
        left.append(who.open.sum())
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0] / 4
    assert len(np.unique(who.hazards)) == 3


def test_patience_ends_a_session_but_not_the_next_and_the_rest_stays_unseen() -> None:
    who = people(ON.only("patience"))
    poor = np.zeros((3, JOBS))
    seen = [who.look(np.full(3, job), poor[:, job]) for job in range(4)]
    assert [np.isnan(row).all() for row in seen] == [False, False, True, True]
    assert who.open[:, 2:].all()
    who.end_session()
    assert not np.isnan(who.look(np.full(3, 2), poor[:, 2])).any()


def test_no_job_is_seen_by_whoever_is_shown_none() -> None:
    who = people(ON)
    found = who.look(np.array([0, NO_JOB, 1]), np.array([1.0, 1.0, 1.0]))
    assert np.isnan(found).tolist() == [False, True, False]
    assert who.seen.sum(1).tolist() == [1, 0, 1]


def test_a_person_is_the_same_alone_and_among_others() -> None:
    config = replace(ON, spread=0.5)
    several, alone = people(config), people(config, ["bob"])
    for job in (0, 1, 2, 5):
        both = look(several, job), alone.look(np.array([job]), BASE[1:2, job])
        assert both[0][1:2].tobytes() == both[1].tobytes()
        assert several.end_session()[1] == alone.end_session()[0]
    assert not np.array_equal(several.rewards(BASE), people(config, seed=1).rewards(BASE))


def test_each_dynamic_can_be_switched_off() -> None:
    for name in DYNAMICS:
        only = ON.only(name)
        assert [bool(getattr(only, other)) for other in DYNAMICS] == [other == name for other in DYNAMICS]


@pytest.mark.parametrize("values", [{"recovery": 1.0}, {"drift": -0.1}, {"satiation": -1.0}, {"days": 0.5}])
def test_strengths_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="person model"):
        PersonConfig(**values)  # type: ignore[arg-type]


def test_families_are_found_by_similarity() -> None:
    assert np.array_equal(families_of(EMBEDDING, 0.9), FAMILIES)
    assert len(set(families_of(EMBEDDING, 1e-9))) == JOBS


def test_a_judgement_follows_the_changed_reward_and_is_itself_while_nothing_changes() -> None:
    judgement = judgement_from_probabilities("ann", "job", (0.0, 1.0, 0.0, 0.0), judge="j")
    assert changed(judgement, 0.5) is judgement
    tired = changed(judgement, 0.1)
    assert (tired.label, tired.reward) == ("CLICK", pytest.approx(0.1))
    for reward in (-0.1, -0.03, 0.0, 0.3, 0.77, 1.0):
        assert judgement_of_reward("ann", "job", reward, "j").reward == pytest.approx(reward)
