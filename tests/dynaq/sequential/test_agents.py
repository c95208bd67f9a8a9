"""Agents in a market of their own: three families of twelve jobs, of which each person likes two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dynaq.agent.config import DynaQConfig
from dynaq.agent.pair_features import job_embedding
from dynaq.sequential.agents import Bandit, Cosine, DiverseBandit, Oracle, SequentialAgents
from dynaq.sequential.dynamics_model import DRIFTS, LearnedDynamics
from dynaq.sequential.people import NO_JOB, Dynamics, People, PersonConfig, similar_rewards, soft_labels
from dynaq.sequential.planning import PlanConfig, Planner, greedy
from dynaq.sequential.simulation import Outcome, simulate
from tests.support.toy_market import ToyMarket

TIRED = PersonConfig(satiation=0.4, recovery=0.8, spread=0.0)
VALUES = np.array([-0.1, 0.0, 0.5, 1.0])
SESSIONS, SIZE = 8, 4


class Arena:
    """A toy market as the simulation sees it."""

    def __init__(self, market: ToyMarket, people: int = 8) -> None:
        self.cache, self.names = market.cache, list(market.cache.applicant_ids[:people])
        grades = [[int(market.grades[name][job]) for job in self.cache.job_ids] for name in self.names]
        self.base = VALUES[np.array(grades)]
        self.embedding = job_embedding(self.cache).double().numpy()
        self.similar = similar_rewards(self.embedding)
        topics = {row.tobytes(): i for i, row in enumerate(np.unique(self.base.T, axis=0))}
        self.families = np.array([topics[row.tobytes()] for row in np.ascontiguousarray(self.base.T)])
        self.config = DynaQConfig.load(None, {"world_model": "bayes"})

    def people(self, person: PersonConfig, seed: int = 0) -> People:
        return People(person, self.names, self.families, self.similar, seed)

    def agent(self, kind: str, plan: PlanConfig | None = None, **values: Any) -> Any:
        shared = self.cache, self.names, SESSIONS * SIZE
        if kind == "cosine":
            return Cosine(self.cache, self.names)
        if kind == "bandit":
            return Bandit(*shared, self.config)
        if kind == "mmr":
            return DiverseBandit(*shared, 0.5, config=self.config)
        made = Oracle if values else SequentialAgents
        return made(*shared, self.families, plan or greedy(PlanConfig()), config=self.config, **values)

    def run(self, agent: Any, people: People) -> Outcome:
        return simulate(people, self.base, self.embedding, agent, sessions=SESSIONS, size=SIZE)


@pytest.fixture(scope="module")
def arena(market: ToyMarket) -> Arena:
    return Arena(market)


@pytest.mark.parametrize("kind", ["cosine", "bandit", "mmr", "sequential"])
def test_lists_hold_open_jobs_that_were_not_shown_before(arena: Arena, kind: str) -> None:
    people = arena.people(PersonConfig(satiation=0.2, depletion=0.02, patience=2))
    agent, rows = arena.agent(kind, PlanConfig(updates=1)), np.arange(len(arena.names))
    for session in range(4):
        offered = people.open
        lists = agent.propose(offered, SIZE, 3 - session)
        for row, jobs in enumerate(lists):
            shown = jobs[jobs != NO_JOB]
            assert len(set(shown)) == len(shown)
            assert offered[row, shown].all()
        rewards = np.stack([people.look(jobs, arena.base[rows, jobs]) for jobs in lists.T], axis=1)
        before, gaps = people.open, people.end_session()
        agent.observe(lists, rewards, gaps, before, people.open)


def test_where_nobody_changes_planning_and_history_show_what_the_bandit_shows(arena: Arena) -> None:
    """The placebo: not nearly, but to the bit."""
    off = PersonConfig()
    bandit = arena.run(arena.agent("bandit"), arena.people(off))
    for plan in (PlanConfig(), greedy(PlanConfig())):
        same = arena.run(arena.agent("sequential", plan), arena.people(off))
        assert same.returns.tobytes() == bandit.returns.tobytes()


def learned(person: PersonConfig) -> LearnedDynamics:
    """What is learned of 24 people who each like some of twelve families, from lists drawn at random."""
    rng = np.random.default_rng(0)
    families = np.repeat(np.arange(12), 8)
    embedding = (rng.standard_normal((12, 6)) / 2)[families] + 0.1 * rng.standard_normal((96, 6))
    base = rng.choice(VALUES, (24, 12))[:, families]
    people = People(person, [f"p{i}" for i in range(24)], families, similar_rewards(embedding), 0)
    found = LearnedDynamics(np.zeros((24, 96)), families, embedding)
    for _ in range(15):
        for _ in range(4):
            jobs = np.where(people.open, rng.random(people.open.shape), -1.0).argmax(1)
            at = base[np.arange(24), jobs]
            found.look(jobs, at, people.look(jobs, at))
        before, gaps = people.open, people.end_session()
        found.end_session(gaps, before, people.open)
    found.fit()
    return found


def test_what_repetition_costs_is_learned_and_nothing_is_where_it_costs_nothing() -> None:
    assert learned(TIRED).cost == pytest.approx(0.4, abs=0.1)
    assert learned(PersonConfig()).cost == 0.0


def test_drift_is_told_from_liking_similar_jobs() -> None:
    assert DRIFTS[learned(PersonConfig(drift=0.15, spread=0.0)).drifting] == pytest.approx(0.15, abs=0.1)
    assert DRIFTS[learned(PersonConfig()).drifting] == 0.0


class Teller:
    """A planner's market in which waiting pays: two jobs of a family that tires, and two poor ones."""

    def __init__(self, updates: int) -> None:
        self.plan = PlanConfig(gamma=1.0, depth=3, updates=updates, candidates=4, steps=10)
        self.families = np.array([0, 0, 0, 0, 1, 2, 3, 4])
        self.base = np.repeat([[1.0, 1.0, 1.0, 1.0, 0.3, 0.3, 0.3, 0.3]], 6, axis=0)
        self.planner = Planner(self.plan, self.families, np.eye(8) * 1.1 - 0.1, 0)
        self.open = np.ones((6, 8), bool)

    def first_list(self) -> np.ndarray:
        people = len(self.base)
        dynamics = Dynamics(
            satiates=np.full(people, 0.6),
            drifts=np.zeros(people),
            recovery=0.1,
            days=2.0,
            hazards=np.zeros(8),
            keep=np.ones(people),
            drift=np.zeros((people, 8)),
            satiation=np.zeros((people, 5)),
        )
        return self.planner.lists(self.base, dynamics, self.open, 2, 3)


def test_the_network_does_what_a_frozen_one_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without learning, the second job is of the same family, worth 0.4 now; planning keeps it for another session."""
    greedy_family = [Teller(0).families[row].tolist() for row in Teller(0).first_list()]
    assert greedy_family == [[0, 0]] * 6
    learning, frozen = Teller(20), Teller(20)
    monkeypatch.setattr(frozen.planner._network, "descend", lambda slope: None)

    def repeated(market: Teller) -> int:
        """People who are shown the family that tires twice."""
        return sum(market.families[row].tolist() == [0, 0] for row in market.first_list())

    assert repeated(learning) == 0
    assert repeated(frozen) == 6


def test_an_oracle_is_told_the_dynamics_and_not_the_rewards_unless_it_is(arena: Arena) -> None:
    people = arena.people(replace(TIRED, depletion=0.05))
    knows = arena.agent("sequential", people=people)
    assert knows.dynamics().satiates.tolist() == [0.4] * len(arena.names)
    assert not np.array_equal(knows.base, arena.base)
    assert np.array_equal(arena.agent("sequential", people=people, truth=arena.base).base, arena.base)


def test_closing_rates_are_learned_from_who_was_there_before() -> None:
    learned = LearnedDynamics(np.zeros((2, 40)), np.repeat([0, 1], 20), np.random.default_rng(0).random((40, 3)))
    rng = np.random.default_rng(1)
    open_jobs = np.ones((2, 40), bool)
    rates = np.repeat([0.02, 0.2], 20)
    for _ in range(8):
        still = open_jobs & (rng.random(40) > rates)
        learned.end_session(np.ones(2, np.int64), open_jobs, still)
        open_jobs = still
    slow, fast = learned.dynamics().hazards[[0, -1]]
    assert slow < 0.06 < 0.1 < fast


def test_soft_labels_have_the_reward_as_their_mean() -> None:
    rewards, values = np.array([-0.1, 0.2, 0.7, 1.0]), [1.0, 0.5, 0.0, -0.1]
    labels = soft_labels(rewards, values)
    assert labels @ np.array(values) == pytest.approx(rewards)
    assert labels.sum(-1) == pytest.approx(np.ones(4))


def test_an_outcome_measures_the_list(arena: Arena) -> None:
    found = arena.run(
        arena.agent("sequential", people=arena.people(PersonConfig()), truth=arena.base), arena.people(PersonConfig())
    )
    assert found.ndcg[:, 0] == pytest.approx(np.ones(len(arena.names)))
    assert (found.judgements == SIZE).all()
    assert ((found.distance >= -1e-9) & (found.distance <= 2.0)).all()
