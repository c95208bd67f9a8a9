from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dynaq.env
from dynaq.errors import InputError
from dynaq.judging.history import History
from dynaq.judging.judgement import Judgement, Slate
from dynaq.sequential import SEQUENTIAL_ID
from dynaq.sequential.people import PersonConfig
from tests.support.toy_market import GradeSource, ToyMarket

ON = PersonConfig(satiation=0.3, drift=0.2, depletion=0.05, patience=2)


def make(market: ToyMarket, **values: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(SEQUENTIAL_ID, cache=market.cache, **{"budget": 12, "slate_size": 5, "person": ON} | values)


def played(env: gymnasium.Env[Any, Any], seed: int) -> list[Any]:
    seen: list[Any] = [env.reset(seed=seed)]
    over = False
    while not over:
        *step, info = env.step(len(seen) % 5)
        over = step[2] or step[3]
        seen.append((*step, info))
    return seen


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("history", [0, 3])
def test_it_passes_gymnasiums_own_checks_without_a_warning(market: ToyMarket, judged: bool, history: int) -> None:
    env = make(market, source=GradeSource(market.grades) if judged else None, history=history)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    assert [str(one.message) for one in said] == []


@pytest.mark.parametrize("judged", [True, False])
def test_with_every_dynamic_off_it_is_v0_to_the_bit(market: ToyMarket, judged: bool) -> None:
    def make_of(name: str, **values: Any) -> gymnasium.Env[Any, Any]:
        source = GradeSource(market.grades) if judged else None
        return gymnasium.make(name, cache=market.cache, source=source, budget=12, slate_size=5, **values)

    before, now = make_of(dynaq.env.ID), make_of(SEQUENTIAL_ID, history=0, person=PersonConfig())
    assert before.observation_space == now.observation_space
    assert before.action_space == now.action_space
    for seed in range(3):
        for (*a, a_info), (*b, b_info) in zip(played(before, seed), played(now, seed), strict=True):
            assert a[0].tobytes() == b[0].tobytes()
            assert a[1:] == b[1:]
            assert a_info == b_info


def test_the_history_follows_the_observation_of_v0(market: ToyMarket) -> None:
    off = {"person": PersonConfig(), "source": None}
    plain, full = played(make(market, history=0, **off), 1), played(make(market, history=4, **off), 1)
    assert len(plain) == len(full) == 13
    for a, b in zip(plain, full, strict=True):
        assert np.array_equal(a[0], b[0][: len(a[0])])
    last = full[6][0][len(plain[0][0]) :]
    rewards, jobs = last[:8].reshape(4, 2)[:, 0], last[8:].reshape(5, 5)
    assert rewards.tolist() == pytest.approx([step[1] for step in full[6:2:-1]])
    assert jobs[:, 1:].max() <= 1.0
    assert [event["job_id"] for event in full[6][-1]["history"]] == [step[-1]["job_id"] for step in full[3:7]]


def test_a_family_seen_again_is_worth_less_and_its_label_follows(market: ToyMarket) -> None:
    one_family = np.zeros(len(market.cache.job_ids), np.int64)
    values = {"source": GradeSource(market.grades), "applicants": ["ann03"], "families": one_family, "list_size": 12}
    fresh = played(make(market, **values, person=PersonConfig()), 0)
    tired = played(make(market, **values, person=PersonConfig(satiation=0.2, spread=0.0)), 0)
    for seen, (a, b) in enumerate(zip(fresh[1:], tired[1:], strict=True)):
        assert a[-1]["job_id"] == b[-1]["job_id"]
        assert b[1] == pytest.approx(max(a[1] - 0.2 * seen, min(a[1], -0.1)))
    assert {a[-1]["label"] for a in fresh[1:]} - {b[-1]["label"] for b in tired[6:]}


class TellingSource(GradeSource):
    """Keeps what it was told with each question."""

    def __init__(self, market: ToyMarket) -> None:
        super().__init__(market.grades)
        self.told: list[History] = []

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        self.told += [slate.history for slate in slates]
        return super().fetch(slates)


def test_a_judge_with_memory_is_told_the_last_events_newest_first(market: ToyMarket) -> None:
    plain, told = TellingSource(market), TellingSource(market)
    off = {"person": PersonConfig(), "list_size": 3}
    before = played(make(market, source=plain, **off), 0)
    after = played(make(market, source=told, **off, memory=2), 0)
    assert [step[1] for step in before[1:]] == [step[1] for step in after[1:]]  # grades do not depend on what is told
    assert set(plain.told) == {()}
    assert [len(history) for history in told.told] == [0, 1, *[2] * 10]
    asked = [step[-1]["job_id"] for step in after[1:]]
    assert [[event.job_id for event in history] for history in told.told[2:]] == [
        [asked[i + 1], asked[i]] for i in range(10)
    ]
    did = {"APPLY": "apply", "SAVE": "save", "CLICK": "click", "IGNORE": "ignore"}
    assert [history[0].event for history in told.told[1:]] == [did[step[-1]["label"]] for step in after[1:-1]]
    assert {event.ago for history in told.told for event in history} > {"today"}


def test_days_pass_after_a_list_and_when_patience_ends(market: ToyMarket) -> None:
    steady = played(make(market, list_size=4, person=PersonConfig()), 0)
    days = [step[-1]["day"] for step in steady]
    changes = [step for step in range(1, 13) if days[step] != days[step - 1]]
    assert changes == [4, 8, 12]
    poor = GradeSource({name: dict.fromkeys(grades, 0.0) for name, grades in market.grades.items()})
    left = played(make(market, source=poor, list_size=4, person=PersonConfig(patience=2)), 0)
    days = [step[-1]["day"] for step in left]
    assert [step for step in range(1, 13) if days[step] != days[step - 1]] == [2, 4, 6, 8, 10, 12]


def test_a_learner_can_act_over_the_whole_catalogue(market: ToyMarket) -> None:
    jobs = len(market.cache.job_ids)
    env = make(market, slate_size=jobs, budget=jobs, person=PersonConfig())
    _, info = env.reset(seed=0)
    expected = info["job_ids"][-1]
    observation, _, _, _, info = env.step(np.int64(jobs - 1))
    assert info["job_id"] == expected
    assert len(info["job_ids"]) == jobs - 1
    assert env.observation_space.contains(observation)


def test_an_episode_can_be_a_number_of_sessions(market: ToyMarket) -> None:
    assert len(played(make(market, budget=30, list_size=3, sessions=4, person=PersonConfig()), 0)) == 1 + 12


def test_closed_postings_are_not_offered_and_an_empty_market_ends_the_episode(market: ToyMarket) -> None:
    steps = played(make(market, budget=40, list_size=1, person=PersonConfig(depletion=0.5), world_seed=3), 0)
    assert len(steps) < 41
    assert steps[-1][2]
    assert all(not np.isnan(step[0]).any() for step in steps)


def test_the_same_seed_is_the_same_episode_and_another_is_not(market: ToyMarket) -> None:
    def told(seed: int) -> list[Any]:
        return [(step[-1]["job_ids"], step[-1]["day"]) for step in played(make(market), seed)]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_many_of_it_run_as_a_vector(market: ToyMarket) -> None:
    envs = gymnasium.make_vec(SEQUENTIAL_ID, num_envs=3, cache=market.cache, person=ON, budget=6, slate_size=4)
    observations, _ = envs.reset(seed=0)
    assert observations.shape[0] == 3
    observations, rewards, *_ = envs.step(np.array([0, 1, 2]))
    assert rewards.shape == (3,)


@pytest.mark.parametrize(
    "values", [{"list_size": 0}, {"sessions": 0}, {"history": -1}, {"memory": -1}, {"families": np.zeros(2, np.int64)}]
)
def test_a_setting_that_cannot_be_is_refused(market: ToyMarket, values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make(market, **values)
