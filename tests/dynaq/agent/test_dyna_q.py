from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import RewardStrategy, make_strategy
from dynaq.errors import InputError, JudgeError
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.judging.judgement import Judgement
from tests.support.toy_market import ABSTAINED, GradeSource, ToyMarket, block_of, grade_judgement, small_config

EXPLORING: dict[str, Any] = {"epsilon_start": 0.5, "epsilon_end": 0.1}
REFERENCE: dict[str, Any] = {"preset": "reference", "dropout": 0.2, "batch_size": 8}


def run(block: DynaQBlock, source: GradeSource | None) -> DynaQBlock:
    return block.fit(source)


def mean_ndcg(market: ToyMarket, block: DynaQBlock) -> float:
    ranked = zip(block.applicant_ids, block.recommendations(10), strict=True)
    return float(np.mean([ndcg_at_k([j for j, _ in jobs], market.grades[a], 10) for a, jobs in ranked]))


def test_judgements_improve_the_ranking_over_the_cosine(market: ToyMarket) -> None:
    block = block_of(market)
    before = mean_ndcg(market, block)
    run(block, GradeSource(market.grades))
    assert before < 0.8
    assert mean_ndcg(market, block) > 0.97


def test_the_reference_preset_learns_too(market: ToyMarket) -> None:
    block = block_of(market, applicants=4, preset="reference", q_hidden=(64, 32), model_hidden=(64, 32), budget=40)
    before = mean_ndcg(market, block)
    run(block, GradeSource(market.grades))
    assert mean_ndcg(market, block) > before + 0.1


@pytest.mark.parametrize(("planning", "expected"), [("catalogue", True), ("replay", False)])
def test_planning_asks_the_model_about_jobs_beyond_the_judged(market: ToyMarket, planning: str, expected: bool) -> None:
    block = block_of(market, planning=planning)
    block.step(GradeSource(market.grades))
    jobs, weights = block.planning_jobs(block.model.mean)
    asked = block.judged.asked.gather(1, jobs)
    assert bool((~asked & (weights > 0)).any()) is expected
    assert bool((asked & (weights > 0)).any())


def test_planning_changes_q_of_jobs_that_were_never_judged(market: ToyMarket) -> None:
    """By the tabular part alone, so that no network generalises what was judged to other jobs."""

    def touched(planning: str) -> torch.Tensor:
        block = block_of(market, planning=planning, warm_start=False)
        block.step(GradeSource(market.grades))
        return (block.q.table != 0) & ~block.judged.asked

    assert int(touched("catalogue").sum()) == 16 * 55
    assert not touched("replay").any()


def test_planning_over_a_part_of_the_catalogue_prefers_promising_jobs_and_forgets_none(market: ToyMarket) -> None:
    block = block_of(market, planning_batch=16)
    expected = block.model.mean
    seen = torch.zeros(16, 60, dtype=torch.bool)
    for _ in range(200):
        jobs, weights = block.planning_jobs(expected)
        assert jobs.shape == weights.shape == (16, 16)
        best = torch.topk(expected + block.model.deviation, 8, dim=1).indices
        assert torch.equal(jobs[:, :8].sort(1).values, best.sort(1).values)
        seen.scatter_(1, jobs, True)
    assert seen.all()


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_abstentions_are_neither_rewards_nor_learned_nor_counted(market: ToyMarket, preset: str) -> None:
    name = market.cache.applicant_ids[0]
    abstains = {(name, job_id) for job_id in market.cache.job_ids[::2]}
    source = GradeSource(market.grades, abstains)
    block = block_of(market, 2, preset=preset)
    records = [record for one in block.rounds(source) for record in one if record.applicant_id == name]
    asked = source.asked_of(name)
    unanswered = [job_id for job_id in asked if (name, job_id) in abstains]
    assert unanswered, "the test needs an abstention"
    assert sum(r.abstained for r in records) == len(unanswered)
    assert records[-1].judgements_used == int(block.judged.counts[0]) == len(asked) - len(unanswered)
    kept = {market.cache.job_ids[j] for j in block.judged.jobs[0, : int(block.judged.counts[0])].tolist()}
    assert kept == set(asked) - set(unanswered)
    assert records[-1].cumulative_reward == pytest.approx(
        sum(grade_judgement(name, j, market.grades[name][j]).reward or 0.0 for j in kept), abs=1e-5
    )


def test_an_agent_whose_judge_only_abstains_learns_nothing_from_it(market: ToyMarket) -> None:
    """It must not be taught that some job is worth nothing, beside agents that do get answers."""
    name = market.cache.applicant_ids[0]
    abstains = {(name, job_id) for job_id in market.cache.job_ids}
    block = block_of(market, 2, preset="reference", dropout=0.0, model_updates=50, warm_start_updates=100)
    (record, _) = block.step(GradeSource(market.grades, abstains))
    assert math.isnan(record.mean_reward)
    assert math.isnan(record.q_loss)
    assert record.judgements_used == 0
    cosines = (market.cache.calculate_cosine_similarities(name) + 1) / 2
    assert np.abs(block.model.mean[0].numpy() - cosines).max() < 0.03


def test_a_judge_that_can_say_nothing_is_asked_no_more_often_than_the_budget(market: ToyMarket) -> None:
    mute, heard = market.cache.applicant_ids[:2]
    source = GradeSource(market.grades, {(mute, job_id) for job_id in market.cache.job_ids})
    run(block_of(market, 2), source)
    assert len(source.asked_of(mute)) == 20
    assert len(source.asked_of(heard)) == 20


@pytest.mark.parametrize("values", [{}, EXPLORING, {"budget": 7}, {"budget": 500}], ids=str)
def test_no_pair_is_asked_twice_and_the_budget_is_kept(market: ToyMarket, values: dict[str, Any]) -> None:
    source = GradeSource(market.grades)
    block = run(block_of(market, 3, **values), source)
    assert len(source.asked) == len(set(source.asked))
    budget = min(values.get("budget", 20), 60)
    for applicant_id in block.applicant_ids:
        assert len(source.asked_of(applicant_id)) == budget
    assert block.step(source) == []
    assert source.calls == math.ceil(budget / 5)


def test_a_round_is_one_call_to_the_judge_for_the_whole_block(market: ToyMarket) -> None:
    source = GradeSource(market.grades)
    records = block_of(market).step(source)
    assert source.calls == 1
    assert [r.applicant_id for r in records] == list(market.cache.applicant_ids)
    assert all(r.round == 1 and r.judgements_used == 5 and r.w_cosine == 0.0 for r in records)


@pytest.mark.parametrize("values", [EXPLORING, REFERENCE], ids=["default", "reference"])
def test_after_a_failure_of_the_judge_the_round_is_repeated_as_if_nothing_had_happened(
    market: ToyMarket, values: dict[str, Any]
) -> None:
    calm = run(block_of(market, 4, **values), GradeSource(market.grades))
    disturbed, source = block_of(market, 4, **values), GradeSource(market.grades, fails=lambda call: call % 2 == 0)
    failures = 0
    while not disturbed.done:
        learned = disturbed.q.state() | disturbed.judged.state()
        before = {name: tensor.clone() for name, tensor in learned.items()}
        try:
            disturbed.step(source)
        except JudgeError:
            failures += 1
            after = disturbed.q.state() | disturbed.judged.state()
            assert all(torch.equal(before[name], after[name]) for name in before)
    assert failures == 3
    assert disturbed.round == calm.round
    np.testing.assert_array_equal(disturbed.q_values(), calm.q_values())


def test_a_judge_that_answers_other_jobs_is_an_error(market: ToyMarket) -> None:
    class Swapped(GradeSource):
        def fetch(self, slates: Any) -> list[list[Judgement]]:
            return [answer[::-1] for answer in super().fetch(slates)]

    block = block_of(market, 2)
    with pytest.raises(JudgeError, match="other jobs"):
        block.step(Swapped(market.grades))
    assert block.round == 0
    assert not block.judged.asked.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [EXPLORING | {"judge_noise": 0.2}, REFERENCE | {"planning": "replay"}, {"batch_size": 8, "planning_batch": 16}],
    ids=["default", "reference", "sampled"],
)
def test_the_same_seed_gives_the_same_recommendations_whatever_the_block(
    market: ToyMarket, values: dict[str, Any]
) -> None:
    """Also when agents advance unevenly because the judge abstains on some pairs."""
    config = small_config(**values)
    strategy = make_strategy("hybrid", config)

    def trained(*applicants: str) -> dict[str, list[str]]:
        block = run(DynaQBlock(market.cache, applicants, strategy, config), GradeSource(market.grades, ABSTAINED))
        ranked = zip(block.applicant_ids, block.recommendations(10), strict=True)
        return {applicant_id: [job_id for job_id, _ in jobs] for applicant_id, jobs in ranked}

    names = market.cache.applicant_ids
    together = trained(*names)
    assert together == trained(*names)
    assert together == trained(*names[:5]) | trained(*names[5:])
    assert trained(names[3]) == {names[3]: together[names[3]]}
    assert trained(names[9], names[0]) == {name: together[name] for name in (names[9], names[0])}


def test_another_seed_explores_otherwise(market: ToyMarket) -> None:
    asked = []
    for seed in (0, 1):
        source = GradeSource(market.grades)
        run(block_of(market, 2, seed=seed, **EXPLORING), source)
        asked.append(source.asked)
    assert asked[0] != asked[1]


@pytest.mark.parametrize(
    "values",
    [{}, {"preset": "reference"}, {"loss": "huber", "double_q": True, "tau": 0.3, "dropout": 0.3}],
    ids=["default", "reference", "options"],
)
def test_a_block_of_one_equals_the_same_agent_in_a_block_of_sixteen(market: ToyMarket, values: dict[str, Any]) -> None:
    """After 100 updates: of weights, table and Q."""
    together, alone = block_of(market, **values, warm_start_updates=0), None
    names = market.cache.applicant_ids
    config = together.config
    alone = DynaQBlock(market.cache, names[7:8], make_strategy("llm", config), config)
    rng = torch.Generator().manual_seed(5)
    for update in range(100):
        jobs = torch.stack([torch.randperm(60, generator=rng)[:32] for _ in names])
        rewards, weights = torch.rand(16, 32, generator=rng), torch.rand(16, 32, generator=rng).round()
        together.q.update(jobs, rewards, weights)
        alone.q.update(jobs[7:8], rewards[7:8], weights[7:8])
        if update % 10 == 9:
            together.q.sync()
            alone.q.sync()
    for many, one in ((together.q.network.parameters, alone.q.network.parameters),):
        for stacked, single in zip(many.weights + many.biases, one.weights + one.biases, strict=True):
            torch.testing.assert_close(stacked[7:8], single, atol=1e-4, rtol=0)
    torch.testing.assert_close(together.q.table[7:8], alone.q.table, atol=1e-4, rtol=0)
    np.testing.assert_allclose(together.q_values()[7], alone.q_values()[0], atol=1e-4)


@pytest.mark.parametrize("world_model", ["bayes", "mlp"])
def test_a_loss_that_is_not_finite_stops_that_agent_alone(market: ToyMarket, world_model: str) -> None:
    broken = market.cache.applicant_ids[1]
    values = {"world_model": world_model, "budget": 15}
    healthy = run(block_of(market, 4, **values), GradeSource(market.grades))
    source = GradeSource(market.grades)
    block = block_of(market, 4, **values)
    block.q.table[1] = 1e30  # its square is not a float32
    run(block, source)
    assert list(block.failures) == [broken]
    message = block.failures[broken]
    assert repr(broken) in message
    assert "round 1" in message
    assert any(job_id in message for job_id in source.asked_of(broken))
    assert len(source.asked_of(broken)) == 5
    rest = [0, 2, 3]
    np.testing.assert_array_equal(block.q_values()[rest], healthy.q_values()[rest])


def test_a_warm_start_that_diverges_names_the_agent(market: ToyMarket) -> None:
    block = block_of(market, 2, learning_rate=1e30)
    assert set(block.failures) == set(block.applicant_ids)
    assert "round 0" in block.failures["ann00"]
    assert block.done


@pytest.mark.parametrize("switch", [None, 10])
def test_hybrid_is_annealed_and_its_reward_blended(market: ToyMarket, switch: int | None) -> None:
    block = block_of(market, 1, "hybrid", w_initial=0.8, w_final=0.2, anneal_steps=20, switch_step=switch)
    source = GradeSource(market.grades)
    name = block.applicant_ids[0]
    weight, total = 0.8, 0.0
    for used in (5, 10, 15, 20):
        (record,) = block.step(source)
        cosines = (market.cache.calculate_cosine_similarities(name) + 1) / 2
        total += sum(
            weight * cosines[market.cache.job_index(j)]
            + (1 - weight) * (grade_judgement(name, j, market.grades[name][j]).reward or 0.0)
            for j in source.asked_of(name)[-5:]
        )
        assert record.cumulative_reward == pytest.approx(total, abs=1e-4)
        weight = 0.2 if switch is not None and used >= switch else 0.8 - 0.6 * used / 20
        assert record.w_cosine == pytest.approx(weight)


def test_the_cosine_strategy_asks_nobody_and_ranks_by_the_cosine(market: ToyMarket) -> None:
    block = run(block_of(market, 3, "cosine"), None)
    for name, ranked in zip(block.applicant_ids, block.recommendations(5), strict=True):
        best, _ = market.cache.top_k(name, 5)
        assert [job_id for job_id, _ in ranked] == [market.cache.job_ids[j] for j in best]
    (record, *_) = block_of(market, 3, "cosine").step()
    assert record.judgements_used == 0


def test_epsilon_falls_with_the_judged_pairs_and_is_reported(market: ToyMarket) -> None:
    block = block_of(market, 1, epsilon_start=1.0, epsilon_end=0.25, epsilon_decay=0.9)
    source = GradeSource(market.grades)
    epsilons = [block.step(source)[0].epsilon for _ in range(4)]
    assert epsilons == pytest.approx([1.0, 0.9**5, 0.9**10, 0.25])


def test_an_upper_confidence_bound_prefers_what_is_uncertain(market: ToyMarket) -> None:
    block = block_of(market, 1, ucb=1e6)
    block.model.deviation = torch.linspace(0, 1, 60)[None]
    assert sorted(block.propose()[0]) == [55, 56, 57, 58, 59]


def test_offline_learning_uses_only_what_is_there(market: ToyMarket) -> None:
    first, second = market.cache.applicant_ids[:2]
    jobs = market.cache.job_ids
    judgements = [grade_judgement(first, j, market.grades[first][j]) for j in jobs]
    judgements += [grade_judgement(second, j, market.grades[second][j]) for j in jobs[:7]]
    judgements += [grade_judgement(second, jobs[0], 3), grade_judgement("stranger", jobs[0], 3)]
    judgements += [grade_judgement(second, "not-a-job", 3)]
    block = block_of(market, 3)
    before = mean_ndcg(market, block)
    records = block.learn_offline(iter(judgements))
    assert block.judged.counts.tolist() == [20, 7, 0]
    assert block.judged.jobs[1, :7].tolist() == list(range(7))
    told = grade_judgement(second, jobs[0], market.grades[second][jobs[0]]).reward
    assert float(block.judged.rewards[1, 0]) == pytest.approx(told)
    assert [r.round for r in records if r.applicant_id == second] == [1, 2, 3, 4]
    assert records[0].judgements_used == 20
    assert records[0].mean_reward == pytest.approx(float(block.judged.rewards[0].mean()))
    assert mean_ndcg(market, block) > before


def test_offline_learning_on_the_pairs_of_a_run_ranks_as_well(market: ToyMarket) -> None:
    """The pairs that an acting agent chose teach the same to one that only reads them."""
    source = GradeSource(market.grades)
    acting = run(block_of(market, 4), source)
    offline = block_of(market, 4)
    offline.learn_offline([grade_judgement(a, j, market.grades[a][j]) for a, j in source.asked])
    assert mean_ndcg(market, offline) == pytest.approx(mean_ndcg(market, acting), abs=0.02)
    assert offline.done


def test_offline_learning_is_refused_where_it_means_nothing(market: ToyMarket) -> None:
    with pytest.raises(InputError, match="needs llm or hybrid"):
        block_of(market, 1, "cosine").learn_offline([])
    block = block_of(market, 1)
    block.step(GradeSource(market.grades))
    with pytest.raises(InputError, match="learned before"):
        block.learn_offline([])


@pytest.mark.parametrize(
    ("applicants", "message"),
    [((), "no applicants"), (("ann00", "ann00"), "twice"), (("nobody",), "'nobody' is not in the cohort")],
)
def test_a_cohort_that_cannot_be_trained_is_refused(
    market: ToyMarket, applicants: tuple[str, ...], message: str
) -> None:
    config = small_config()
    with pytest.raises(InputError, match=message):
        DynaQBlock(market.cache, applicants, make_strategy("llm", config), config)


def test_a_strategy_that_needs_a_judge_says_so(market: ToyMarket) -> None:
    with pytest.raises(InputError, match="'llm' needs a judge"):
        block_of(market, 1).step(None)
    assert RewardStrategy("llm", 0.0, 0.0).needs_judge


def test_a_round_tells_what_the_judge_said_whatever_the_strategy_makes_of_it(market: ToyMarket) -> None:
    source = GradeSource(market.grades)
    hybrid = block_of(market, 1, strategy="hybrid", w_initial=0.5).step(source)[0]
    rewards = [float(grade_judgement(name, job, market.grades[name][job]).reward or 0.0) for name, job in source.asked]
    assert hybrid.judge_reward == pytest.approx(np.mean(rewards))
    assert hybrid.judge_reward != pytest.approx(hybrid.mean_reward)
    grades = [market.grades[name][job] for name, job in source.asked]
    shares = (hybrid.applied, hybrid.saved, hybrid.clicked, hybrid.ignored)
    assert shares == tuple(grades.count(grade) for grade in (3.0, 2.0, 1.0, 0.0))
    cosine = block_of(market, 1, strategy="cosine").step(None)[0]
    assert math.isnan(cosine.judge_reward)
    assert (cosine.applied, cosine.ignored) == (0, 0)


def test_rewards_follow_the_agents_own_label_values_whatever_the_ledger_was_made_with(market: ToyMarket) -> None:
    values = {"APPLY": 2.0, "SAVE": 1.0, "CLICK": 0.5, "IGNORE": -1.0}
    config = small_config(budget=5, label_values=values)
    block = DynaQBlock(market.cache, ["ann00"], make_strategy("llm", config), config)
    source = GradeSource(market.grades)
    block.step(source)
    by_grade = {3: 2.0, 2: 1.0, 1: 0.5, 0: -1.0}
    expected = [by_grade[int(market.grades["ann00"][job])] for job in source.asked_of("ann00")]
    assert block.judged.rewards[0, :5].tolist() == expected
