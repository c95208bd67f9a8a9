"""Agents that learn from what people did themselves, beside a judge or without one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynaq.agent.checkpoint import load_block, save_block
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import make_strategy
from dynaq.errors import InputError
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.judging.judgement import Judgement
from tests.support.toy_market import GradeSource, ToyMarket, grade_judgement, small_config

VALUES = {"budget": 10}


def feedback(market: ToyMarket, share: float = 0.3, seed: int = 1, flipped: bool = False) -> list[Judgement]:
    """True answers of everyone to some jobs, or the opposite."""
    rng = np.random.default_rng(seed)
    return [
        grade_judgement(applicant_id, job_id, 3.0 - grade if flipped else grade)
        for applicant_id, grades in market.grades.items()
        for job_id, grade in grades.items()
        if rng.random() < share
    ]


def block(market: ToyMarket, applicants: list[str] | None = None, **values: Any) -> DynaQBlock:
    own = {key: values.pop(key) for key in ("feedback",) if key in values}
    config = small_config(**VALUES | values)
    chosen = applicants or list(market.grades)[:4]
    return DynaQBlock(market.cache, chosen, make_strategy("llm", config), config, **own)


def quality(agents: DynaQBlock, grades: Mapping[str, Mapping[str, float]], without: list[Judgement]) -> float:
    """Mean nDCG@10 over the jobs that the person has not answered."""
    known = {(j.applicant_id, j.job_id) for j in without}
    scores = []
    for applicant_id, ranked in zip(agents.applicant_ids, agents.recommendations(10_000), strict=True):
        left = {j: g for j, g in grades[applicant_id].items() if (applicant_id, j) not in known}
        scores.append(ndcg_at_k([j for j, _ in ranked if j in left], left))
    return float(np.nanmean(scores))


def test_a_pair_that_the_person_answered_is_not_asked_of_the_judge(market: ToyMarket) -> None:
    given = feedback(market)
    agents, source = block(market, feedback=given), GradeSource(market.grades)
    agents.fit(source)
    assert not set(source.asked) & {(j.applicant_id, j.job_id) for j in given}
    assert len(source.asked) == 4 * 10, "real answers must cost no budget"
    assert agents.judged.given.min() > 0


def test_a_real_answer_stands_against_a_judge_who_says_the_opposite_of_everything_like_it(market: ToyMarket) -> None:
    """The world model doubts a judge's answer that does not fit in; it does not doubt the person's."""
    odd = [grade_judgement("ann00", job, 3.0) for job, grade in market.grades["ann00"].items() if grade == 0.0][:1]
    job = market.cache.job_index(odd[0].job_id)
    believed = {}
    for name, given in (("judge", None), ("person", odd)):
        agents = block(market, ["ann00"], feedback=given, judge_noise=0.3)
        agents.learn_offline(odd)
        believed[name] = float(agents.model.mean[0, job])
    assert believed["person"] == pytest.approx(1.0)
    assert believed["judge"] < 0.9


def test_where_ledger_and_person_differ_the_person_counts(market: ToyMarket) -> None:
    real, ledger = feedback(market), feedback(market, flipped=True)
    agents = block(market, feedback=real)
    agents.learn_offline(ledger)
    assert agents.judged.spent.tolist() == [0, 0, 0, 0]
    alone = block(market, feedback=real)
    alone.learn_offline([])
    np.testing.assert_array_equal(agents.q_values(), alone.q_values())


def test_events_alone_make_the_ranking_of_other_jobs_better(market: ToyMarket) -> None:
    given = feedback(market)
    before = quality(block(market), market.grades, given)
    agents = block(market, feedback=given)
    records = agents.learn_offline([])
    assert quality(agents, market.grades, given) > before + 0.1
    assert {record.judgements_used for record in records} == {0}
    assert all(np.isfinite(record.mean_reward) for record in records)


def test_someone_without_events_keeps_the_warm_start(market: ToyMarket) -> None:
    given = [j for j in feedback(market) if j.applicant_id != "ann02"]
    agents = block(market, feedback=given)
    agents.learn_offline([])
    untouched = block(market)
    assert agents.recommendations(5)[0] != untouched.recommendations(5)[0]
    best = [{job for job, _ in block_.recommendations(5)[2]} for block_ in (agents, untouched)]
    assert best[0] == best[1]


def test_an_agent_learns_the_same_alone_as_among_others_who_did_more_or_less(market: ToyMarket) -> None:
    given = feedback(market)
    uneven = [j for i, j in enumerate(given) if j.applicant_id != "ann01" or i % 3 == 0]
    together = block(market, feedback=uneven)
    alone = block(market, ["ann01"], feedback=uneven)
    for agents in (together, alone):
        agents.fit(GradeSource(market.grades))
    torch.testing.assert_close(
        torch.from_numpy(together.q_values()[1]), torch.from_numpy(alone.q_values()[0]), rtol=1e-4, atol=1e-5
    )
    assert [j for j, _ in together.recommendations(10)[1]] == [j for j, _ in alone.recommendations(10)[0]]


def test_a_checkpoint_knows_what_people_did(market: ToyMarket, tmp_path: Path) -> None:
    agents, source = block(market, feedback=feedback(market)), GradeSource(market.grades)
    agents.step(source)
    save_block(agents, tmp_path)
    again = load_block(tmp_path, market.cache)
    assert again.judged.given.tolist() == agents.judged.given.tolist()
    for one in (agents, again):
        one.step(GradeSource(market.grades))
    np.testing.assert_array_equal(again.q_values(), agents.q_values())


def test_the_cosine_strategy_learns_from_nobody(market: ToyMarket) -> None:
    config = small_config(**VALUES)
    with pytest.raises(InputError, match="learns from no feedback"):
        DynaQBlock(market.cache, ["ann00"], make_strategy("cosine", config), config, feedback=feedback(market))
