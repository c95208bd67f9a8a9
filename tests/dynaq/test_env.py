from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dynaq.env import ID
from dynaq.errors import InputError, JudgeError
from tests.support.toy_market import GradeSource, ToyMarket, grade_judgement


def make(market: ToyMarket, **values: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(ID, cache=market.cache, **{"budget": 8, "slate_size": 5} | values)


@pytest.mark.parametrize("judged", [True, False])
def test_it_passes_gymnasiums_own_checks_without_a_warning(market: ToyMarket, judged: bool) -> None:
    env = make(market, source=GradeSource(market.grades) if judged else None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    assert [str(one.message) for one in said] == []


def test_an_episode_is_a_budget_and_asks_no_pair_twice(market: ToyMarket) -> None:
    source = GradeSource(market.grades)
    env = make(market, source=source)
    _, info = env.reset(seed=3)
    name = info["applicant_id"]
    terminated, steps = False, 0
    while not terminated:
        assert len(set(info["job_ids"])) == 5
        assert not set(info["job_ids"]) & set(source.asked_of(name))
        offered = info["job_ids"]
        _, reward, terminated, truncated, info = env.step(2)
        steps += 1
        assert info["job_id"] == offered[2]
        judgement = grade_judgement(name, offered[2], market.grades[name][offered[2]])
        assert (reward, info["label"], truncated) == (judgement.reward, judgement.label, False)
    assert steps == len(set(source.asked)) == 8
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    _, info = env.reset()
    assert env.step(0)[2] is False


def test_without_a_judge_the_reward_is_the_scaled_cosine(market: ToyMarket) -> None:
    env = make(market)
    _, info = env.reset(seed=0, options={"applicant_id": "ann07"})
    cosines = market.cache.calculate_cosine_similarities("ann07")
    job_id = info["job_ids"][4]
    _, reward, *_ = env.step(4)
    assert reward == pytest.approx((cosines[market.cache.job_index(job_id)] + 1) / 2)


def test_the_observation_is_the_budget_left_and_the_slates_similarities(market: ToyMarket) -> None:
    env = make(market)
    observation, info = env.reset(seed=0, options={"applicant_id": "ann07"})
    assert env.observation_space.contains(observation)
    assert observation[0] == 1.0
    layout = market.cache.layout
    blocks = observation[1:].reshape(5, len(layout.state), len(layout.action))
    pairs = market.cache.block_similarities("ann07")
    for row, job_id in zip(blocks, info["job_ids"], strict=True):
        for column, (state, action) in enumerate(layout.pairs):
            expected = pairs[market.cache.job_index(job_id), column]
            assert row[layout.state.index(state), layout.action.index(action)] == pytest.approx(expected, abs=1e-5)
    observation, *_ = env.step(0)
    assert observation[0] == pytest.approx(7 / 8)


def test_the_same_seed_is_the_same_episode(market: ToyMarket) -> None:
    def episode(seed: int) -> list[Any]:
        env = make(market)
        seen = [env.reset(seed=seed)[1]]
        seen += [env.step(1)[4] for _ in range(8)]
        return seen

    assert episode(1) == episode(1)
    assert episode(1) != episode(2)


def test_an_abstention_is_an_error_and_the_episode_goes_on(market: ToyMarket) -> None:
    abstains = {("ann03", job_id) for job_id in market.cache.job_ids[::2]}
    source = GradeSource(market.grades, abstains)
    env = make(market, source=source, applicants=["ann03"])
    _, info = env.reset(seed=0)
    abstained, rewards, terminated = 0, 0, False
    while not terminated:
        if ("ann03", info["job_ids"][0]) in abstains:
            with pytest.raises(JudgeError, match=f"abstained on 'ann03' and '{info['job_ids'][0]}'"):
                env.step(0)
            abstained += 1
            info = env.unwrapped._info()  # type: ignore[attr-defined]
        else:
            _, _, terminated, _, info = env.step(0)
            rewards += 1
    assert rewards == 8
    assert abstained > 0
    assert len(source.asked) == len(set(source.asked)) == 8 + abstained


def test_a_failing_judge_leaves_the_step_to_be_repeated(market: ToyMarket) -> None:
    env = make(market, source=GradeSource(market.grades, fails=lambda call: call == 1), applicants=["ann03"])
    _, info = env.reset(seed=0)
    with pytest.raises(JudgeError, match="away"):
        env.step(1)
    assert env.step(1)[4]["job_id"] == info["job_ids"][1]


def test_state_dynamics_reach_the_next_observation(market: ToyMarket) -> None:
    """Who overrides `next_state` sees it in the similarities, and nothing else needs a change."""
    env = make(market).unwrapped
    env.reset(seed=0, options={"applicant_id": "ann00"})
    env.next_state = lambda state, job, judgement: np.zeros_like(state)  # type: ignore[attr-defined]
    observation, *_ = env.step(0)
    assert not observation[1:].any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"applicants": ["nobody"]}, "'nobody'"),
        ({"applicants": []}, "needs an applicant"),
        ({"budget": 0}, "budget"),
        ({"budget": 57}, "60 jobs are too few for a budget of 57 with slates of 5"),
    ],
    ids=str,
)
def test_what_cannot_be_played_is_refused(market: ToyMarket, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(market, **values)
    assert make(market, budget=56).reset()[0].shape == (76,)


@pytest.mark.slow
def test_rllibs_dqn_takes_steps_on_it(market: ToyMarket, ray_session_fixture: None) -> None:
    from ray.rllib.algorithms.dqn import DQNConfig

    config = (
        DQNConfig()
        .environment(f"dynaq.env:{ID}", env_config={"cache": market.cache, "budget": 8, "slate_size": 5})
        .env_runners(num_env_runners=0, rollout_fragment_length=8)
        .training(train_batch_size=16, num_steps_sampled_before_learning_starts=16)
        .learners(num_learners=0)
        .reporting(min_sample_timesteps_per_iteration=64, min_time_s_per_iteration=0)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    assert result["env_runners"]["num_env_steps_sampled"] >= 64
    assert result["env_runners"]["episode_len_mean"] == 8
    assert 0 < result["env_runners"]["episode_return_mean"] <= 8
    assert result["learners"]["default_policy"]["num_module_steps_trained"] > 0
