"""RLlib's DQN as a baseline: the budget and the judge of the others, and a ranking of the whole catalogue."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from cluster.rllib.dqn import CohortEnv, RllibDqn, RllibDqnConfig, SlateFeatures
from dynaq.env import ID
from dynaq.evaluation.ranking import ndcg_at_k
from tests.support.toy_market import GradeSource, ToyMarket, toy_market

SETTINGS = RllibDqnConfig(slate_size=20, updates=4)
SOONER = 8  # judgements after which two runs are compared, in the middle of learning


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    return toy_market(tmp_path_factory.mktemp("toy"))


def learner(market: ToyMarket, source: GradeSource, budget: int = 20, seed: int = 0) -> RllibDqn:
    return RllibDqn(market.cache, market.cache.applicant_ids, source, SETTINGS, budget, seed)


def test_a_cohort_is_played_in_the_registered_environment(market: ToyMarket) -> None:
    names = list(market.cache.applicant_ids[:3])
    cohort = CohortEnv(market.cache, names, GradeSource(market.grades), budget=4, slate_size=5)
    observed, _ = cohort.reset(seed=7)
    single = gymnasium.make(
        ID, cache=market.cache, applicants=names[:1], source=GradeSource(market.grades), budget=4, slate_size=5
    )
    assert observed.shape == (3, *single.observation_space.shape)
    ended = np.zeros(3, bool)
    for step in range(4):
        observed, rewards, ended, _, _ = cohort.step(np.array([0, 1, 2]))
        answers = [cohort.answers(name, step)[0] for name in names]
        assert rewards.tolist() == [answer.reward for answer in answers]
        assert [answer.applicant_id for answer in answers] == names
    assert ended.all()
    alone = CohortEnv(market.cache, names[1:2], GradeSource(market.grades), budget=4, slate_size=5)
    others = CohortEnv(market.cache, names, GradeSource(market.grades), budget=4, slate_size=5)
    assert np.array_equal(alone.reset(seed=7)[0][0], others.reset(seed=7)[0][1])


def test_an_abstention_is_neither_reward_nor_judgement(market: ToyMarket) -> None:
    name = market.cache.applicant_ids[0]
    abstains = {(name, job_id) for job_id in market.cache.job_ids[::2]}
    cohort = CohortEnv(market.cache, [name], GradeSource(market.grades, abstains), budget=30, slate_size=1)
    cohort.reset(seed=0)
    known: list[float] = []
    for _ in range(30):
        before = len(cohort.answers(name))
        _, rewards, *_ = cohort.step(np.array([0]))
        answers = cohort.answers(name)
        if len(answers) == before:
            assert rewards[0] == pytest.approx(np.mean(known) if known else 0.0)
        known = [float(answer.reward or 0.0) for answer in answers]
    assert 0 < len(known) < 30


def test_every_job_of_a_slate_is_seen_in_the_same_way() -> None:
    observation = torch.rand(2, 1 + 6 * 3)
    order = torch.randperm(6)
    shuffled = torch.cat([observation[:, :1], observation[:, 1:].view(2, 6, 3)[:, order].flatten(1)], dim=1)
    [features], [moved] = SlateFeatures(3)({"obs": observation}).values(), SlateFeatures(3)({"obs": shuffled}).values()
    assert features.shape == (2, 6, 7)
    assert torch.allclose(features[:, order], moved, atol=1e-6)


@pytest.mark.usefixtures("ray_session_fixture")
def test_it_learns_within_its_budget_and_the_same_from_the_same_seed(market: ToyMarket) -> None:
    """Everyone of this market wants what looks a little less like them: one network can learn that."""

    def quality(q: np.ndarray) -> float:
        ranked = [[market.cache.job_ids[j] for j in np.argsort(-row)[:10]] for row in q]
        names = market.cache.applicant_ids
        return float(np.mean([ndcg_at_k(own, market.grades[name]) for own, name in zip(ranked, names, strict=True)]))

    source = GradeSource(market.grades)
    first = learner(market, source)
    start = first.q_values()
    before = quality(start)
    epsilons = [first.epsilon]
    while first.spent < first.budget:
        first.step()
        epsilons.append(first.epsilon)
        if first.spent == SOONER:
            sooner = first.q_values()
    q = first.q_values()
    first.close()
    assert q.shape == (16, len(market.cache.job_ids))
    assert quality(q) > before + 0.1
    assert epsilons == sorted(epsilons, reverse=True)
    assert len(source.asked) == len(set(source.asked)) == 16 * 20
    assert all(len(first.answers(name)) == 20 for name in market.cache.applicant_ids)
    assert np.isfinite(first.loss)
    assert not np.array_equal(sooner, start)
    again = learner(market, GradeSource(market.grades))
    while again.spent < SOONER:
        again.step()
    assert np.array_equal(again.q_values(), sooner)
    again.close()
