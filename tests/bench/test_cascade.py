"""The student, its threshold, and who answers a pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bench import cascade as module
from bench.cascade import REWARDS, Calibration, Cascade, Student, table
from dynaq.agent.bayes_world_model import BayesWorldModel
from dynaq.agent.job_pool import WholeCatalogue
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.judging.judgement import Judgement, Slate
from dynaq.pretraining.fit import pretrain
from dynaq.pretraining.prior import Pretrained
from tests.support.toy_market import GradeSource, ToyMarket, toy_market

CPU = torch.device("cpu")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    return toy_market(tmp_path_factory.mktemp("market"), jobs=30, applicants=16)


def asked(market: ToyMarket, applicants: list[str], jobs: slice) -> list[Judgement]:
    slates = [Slate(applicant, tuple(market.cache.job_ids[jobs])) for applicant in applicants]
    return [judgement for own in GradeSource(market.grades).fetch(slates) for judgement in own]


@pytest.fixture(scope="module")
def networks(market: ToyMarket) -> Iterator[Pretrained]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynaq.pretraining.label_networks.TRAINING_STEPS", 20)
        patch.setattr("dynaq.pretraining.label_networks.BATCH_SIZE", 64)
        patch.setattr("dynaq.pretraining.fit.MEMBERS", 1)
        patch.setattr("dynaq.pretraining.fit.CONTEXTS", 1)
        yield pretrain(market.cache, table(asked(market, list(market.cache.applicant_ids), slice(0, 20))))


def test_the_student_expects_what_a_pretrained_agent_would(market: ToyMarket, networks: Pretrained) -> None:
    torch.manual_seed(0)
    # Fitted so briefly, a head hardly reads what was said before.
    for head in (member for members in networks.heads for member in members):
        torch.nn.init.normal_(head.net[-1].weight)  # type: ignore[arg-type]
    cache, applicants = market.cache, list(market.cache.applicant_ids[:2])
    told = [asked(market, applicants[:1], slice(0, 4)), asked(market, applicants[1:], slice(0, 2))]
    judged = JudgedPairs(2, len(cache.job_ids), 10, CPU)
    for row, own in enumerate(told):
        judged.add([row] * len(own), [cache.job_index(j.job_id) for j in own], own)
    pool = WholeCatalogue(cache, applicants, CPU)
    model = BayesWorldModel(networks.prior(cache, applicants, CPU), pool, REWARDS)
    model.observe(judged)
    before = [([cache.job_index(j.job_id) for j in own], [j.probabilities for j in own]) for own in told]
    new = torch.arange(10, 30).expand(2, -1)
    expected = Student(networks, cache, applicants).predict(before, new) @ REWARDS
    assert torch.allclose(expected, model.mean[:, 10:], atol=1e-4)


def test_the_bound_counts_the_errors_of_answered_pairs_and_the_worst_for_a_new_one() -> None:
    found = Calibration(deviation=np.array([0.1, 0.2, 0.3, 0.4]), error=np.array([0.0, 0.5, 1.0, 1.0]))
    assert found.threshold(0.5) == pytest.approx(0.25)
    assert found.risk(0.25) == pytest.approx((0.5 + 1.1) / 5)


@pytest.mark.parametrize(("threshold", "audit", "calls"), [(0.0, 0.0, 10), (9.0, 0.0, 0), (9.0, 1.0, 10)])
def test_the_judge_answers_doubtful_and_audited_pairs(
    market: ToyMarket,
    networks: Pretrained,
    monkeypatch: pytest.MonkeyPatch,
    threshold: float,
    audit: float,
    calls: int,
) -> None:
    monkeypatch.setattr(module, "AUDIT", audit)
    cascade = Cascade(GradeSource(market.grades), networks, market.cache, threshold)
    applicants = market.cache.applicant_ids[:2]
    answers = cascade.fetch([Slate(applicant, tuple(market.cache.job_ids[:5])) for applicant in applicants])
    assert (cascade.pairs, cascade.calls) == (10, calls)
    judges = {judgement.judge for own in answers for judgement in own}
    assert judges == ({"student"} if calls == 0 else {"toy"})
