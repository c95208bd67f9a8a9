from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dynaq.agent.checkpoint import load_block, save_block
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import make_strategy
from dynaq.agent.trust_world_model import MOST_SHIFT, TrustWorldModel
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.judging.judgement import Judgement, judgement_from_probabilities
from tests.support.toy_market import GradeSource, ToyMarket, grade_judgement, small_config, toy_market


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    """A market in which the cosine is right about whom a job suits: the wanted topic is the one that looks alike."""
    market = toy_market(tmp_path_factory.mktemp("plain"))
    swap = {3.0: 1.0, 1.0: 3.0, 0.0: 0.0}
    grades = {a: {j: swap[g] for j, g in jobs.items()} for a, jobs in market.grades.items()}
    return ToyMarket(market.cache, grades, market.store)


def random_answer(applicant: str, job: str, grade: float) -> Judgement:
    rng = np.random.default_rng([sum(map(ord, applicant + job)), len(job)])
    return judgement_from_probabilities(applicant, job, np.eye(4)[rng.integers(0, 4)].tolist(), judge="random")


def trained(
    market: ToyMarket, source: GradeSource, strategy: str = "hybrid", agents: int = 16, **values: object
) -> DynaQBlock:
    config = small_config(world_model="trust", weighting="trust", **values)
    block = DynaQBlock(market.cache, market.cache.applicant_ids[:agents], make_strategy(strategy, config), config)
    return block.fit(source)


def quality(market: ToyMarket, block: DynaQBlock) -> float:
    ranked = zip(block.applicant_ids, block.recommendations(10), strict=True)
    return float(np.mean([ndcg_at_k([j for j, _ in jobs], market.grades[a], 10) for a, jobs in ranked]))


def cosine_quality(market: ToyMarket) -> float:
    tops = {a: market.cache.top_k(a, 10)[0] for a in market.cache.applicant_ids}
    return float(np.mean([ndcg_at_k([market.cache.job_ids[j] for j in t], market.grades[a]) for a, t in tops.items()]))


def _unasked_best(block: DynaQBlock, k: int) -> list[list[int]]:
    values = block.q.values().masked_fill(block.judged.asked, -np.inf)
    best: list[list[int]] = torch.topk(values, k).indices.tolist()
    return best


@pytest.mark.parametrize("strategy", ["llm", "hybrid"])
def test_a_judge_that_answers_at_random_does_not_spoil_the_cosines_ranking(plain: ToyMarket, strategy: str) -> None:
    """Red when the model ignores its table, or when direct updates take the judge's reward as it is."""
    block = trained(plain, GradeSource(plain.grades, answer=random_answer), strategy)
    assert block.trust is not None
    assert block.trust.trust < 0.3
    assert quality(plain, block) > cosine_quality(plain) - 0.03


def test_a_judge_that_is_right_is_believed_and_followed(market: ToyMarket) -> None:
    """Where the cosine is wrong about the best jobs, so that there is something to follow."""
    block = trained(market, GradeSource(market.grades))
    assert block.trust is not None
    assert block.trust.trust > 0.5
    assert quality(market, block) > cosine_quality(market) + 0.01


UNSURE = {3.0: (0.85, 0.10, 0.03, 0.02), 1.0: (0.05, 0.20, 0.50, 0.25), 0.0: (0.01, 0.04, 0.15, 0.80)}


def test_a_judge_that_is_right_but_never_sure_is_believed_as_much(market: ToyMarket) -> None:
    """Its probabilities hardly vary between pairs of one truth, so they are no random labels."""

    def answer(applicant: str, job: str, grade: float) -> Judgement:
        return judgement_from_probabilities(applicant, job, UNSURE[grade], judge="unsure")

    sure = trained(market, GradeSource(market.grades)).trust
    unsure = trained(market, GradeSource(market.grades, answer=answer)).trust
    assert sure is not None
    assert unsure is not None
    assert unsure.trust > sure.trust - 0.1


def test_direct_updates_learn_what_the_model_believes(plain: ToyMarket) -> None:
    """Without planning, Q of a judged pair comes from direct updates alone: of a random judge it must stay low."""
    config = {"planning_updates": 0, "direct_updates": 50, "budget": 10}
    block = trained(plain, GradeSource(plain.grades, answer=random_answer), "llm", **config)
    judged = block.judged
    q = torch.from_numpy(block.q_values()).gather(1, judged.jobs[:, : judged.longest])
    reward = q - block.q.value  # the advantage of a pair is its reward, up to what all pairs of an agent share
    believed, told = block.model.believed, judged.rewards[:, : judged.longest]
    assert (believed - told).abs().mean() > 0.2

    def centred(x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(1, keepdim=True)

    to_believed = (centred(reward) - centred(believed)).abs().mean()
    to_told = (centred(reward) - centred(told)).abs().mean()
    assert to_believed < 0.5 * to_told


def test_the_first_slate_has_random_probes_and_later_ones_have_none(plain: ToyMarket) -> None:
    config = small_config(world_model="trust")
    block = DynaQBlock(plain.cache, plain.cache.applicant_ids[:4], make_strategy("llm", config), config)
    best = {i: set(jobs[:3]) for i, jobs in enumerate(torch.topk(block.q.values(), 5).indices.tolist())}
    for i, slate in block.propose().items():
        assert set(slate[:3]) == best[i]
        assert len(set(slate)) == 5
        assert not set(slate[3:]) <= set(torch.topk(block.q.values()[i], 5).indices.tolist())
    block.step(GradeSource(plain.grades))
    best = {i: set(jobs) for i, jobs in enumerate(_unasked_best(block, 5))}
    assert {i: set(slate) for i, slate in block.propose().items()} == best


def test_gold_is_asked_about_once_and_anchors_the_table(plain: ToyMarket) -> None:
    config = small_config(world_model="trust")
    names = plain.cache.applicant_ids
    gold = [grade_judgement(names[12], j, plain.grades[names[12]][j]) for j in plain.cache.job_ids[:20]]
    block = DynaQBlock(plain.cache, names[:4], make_strategy("llm", config), config, gold=gold)
    source = GradeSource(plain.grades)
    block.step(source)
    block.step(source)
    assert len(source.asked_of(names[12])) == 20
    assert block.trust is not None
    assert block.trust.known == 20
    assert block.judged.counts.tolist() == [10] * 4


def test_what_people_did_anchors_the_table(plain: ToyMarket) -> None:
    """A judge who calls everything a fit is found out by the jobs that people turned down, before the first round."""
    names = plain.cache.applicant_ids[:4]
    done = [grade_judgement(a, j, plain.grades[a].get(j, 0.0)) for a in names for j in plain.cache.job_ids[:20]]
    clear = {(j.applicant_id, j.job_id) for j in done if j.label != "CLICK"}

    def always_apply(applicant: str, job: str, grade: float) -> Judgement:
        return judgement_from_probabilities(applicant, job, [0.97, 0.01, 0.01, 0.01], judge="apply")

    def run(acts: int) -> tuple[DynaQBlock, GradeSource]:
        config = small_config(world_model="trust", checked_acts=acts, budget=10)
        source = GradeSource(plain.grades, answer=always_apply)
        return DynaQBlock(plain.cache, names, make_strategy("llm", config), config, feedback=done).fit(source), source

    checked, source = run(48)
    both = [pair for pair in source.asked if pair in clear]
    assert len(both) == len(set(both)) == 48
    assert {sum(a == name for a, _ in both) for name in names} == {12}
    assert checked.trust is not None
    assert checked.trust.known == 48
    assert checked.judged.counts.tolist() == [20 + 10] * 4, "pairs that people acted on are in no slate"
    assert checked.trust.trust < 0.05
    unchecked, source = run(0)
    assert unchecked.trust is not None
    assert unchecked.trust.known == 0
    assert not clear & set(source.asked)


@pytest.mark.parametrize("strategy", ["llm", "hybrid"])
def test_a_block_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    plain: ToyMarket, tmp_path: Path, strategy: str
) -> None:
    config = small_config(world_model="trust", weighting="trust")
    source = GradeSource(plain.grades)
    block = DynaQBlock(plain.cache, plain.cache.applicant_ids[:4], make_strategy(strategy, config), config)
    block.step(source)
    save_block(block, tmp_path)
    again = load_block(tmp_path, plain.cache)
    assert again.trust == block.trust
    for one in (block, again):
        record = one.step(source)[0]
        assert record.trust == pytest.approx(block.trust.trust if block.trust else -1.0)
    np.testing.assert_array_equal(block.q_values(), again.q_values())


@pytest.mark.parametrize("agents", [1, 4])
def test_a_small_block_works(plain: ToyMarket, agents: int) -> None:
    block = trained(plain, GradeSource(plain.grades), agents=agents)
    assert not block.failures
    assert np.isfinite(block.q_values()).all()


def test_what_applicants_did_outweighs_the_texts_for_jobs_that_nobody_told_of(market: ToyMarket) -> None:
    """Applicants here look like one topic and want the next, so all that the texts say is wrong."""
    names, jobs = market.cache.applicant_ids, market.cache.job_ids
    told = {a: set(np.random.default_rng(i).permutation(jobs)[:20].tolist()) for i, a in enumerate(names)}
    feedback = [grade_judgement(a, j, market.grades[a].get(j, 0.0)) for a, own in told.items() for j in sorted(own)]
    config = small_config(world_model="trust", weighting="trust")
    block = DynaQBlock(market.cache, names, make_strategy("llm", config), config, feedback=feedback)
    block.learn_offline([])

    def quality_of(ranked: list[str], a: str) -> float:
        left = {j: g for j, g in market.grades[a].items() if j not in told[a]}
        return ndcg_at_k([j for j in ranked if j not in told[a]][:10], left)

    learned = [quality_of([j for j, _ in r], a) for a, r in zip(names, block.recommendations(len(jobs)), strict=True)]
    texts = [quality_of([jobs[i] for i in market.cache.top_k(a, len(jobs))[0]], a) for a in names]
    assert np.nanmean(learned) > np.nanmean(texts) + 0.2


def test_the_judge_is_estimated_from_the_first_answers_of_each_applicant(
    plain: ToyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynaq.agent.trust_world_model.TELLING", 10)
    block = trained(plain, GradeSource(plain.grades), agents=4, budget=20)
    assert block.trust is not None
    assert block.trust.answers == 4 * 10


def test_what_neighbours_add_to_an_unlikely_job_is_bounded() -> None:
    """Where a job's reward hardly varies a priori, one deviation of it is many log-odds."""
    u = torch.tensor([10.0, 5.0, 1.0, -0.1]).expand(1, 3, 4)
    added = TrustWorldModel._shifted(torch.full((1, 3), 50.0), u)
    assert added[0, 0].tolist() == [MOST_SHIFT, MOST_SHIFT, MOST_SHIFT, 0.0]
