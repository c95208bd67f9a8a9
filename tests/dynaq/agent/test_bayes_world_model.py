from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.agent.bayes_world_model import (
    LEAST_INFORMATION,
    OBSERVATION_VARIANCE,
    PROCESS_VARIANCE,
    SHIFT_SCALES,
    BayesWorldModel,
    CosinePrior,
    class_probabilities,
    deviation_of,
    surprises,
)
from dynaq.agent.job_pool import WholeCatalogue
from dynaq.agent.mlp_world_model import MLPWorldModel
from dynaq.agent.pair_features import job_embedding, pair_features, scaled_cosines
from dynaq.agent.pair_inputs import InteractionInputs
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.agent.stacked_mlp import agent_generator
from dynaq.judging.judgement import LABEL_VALUES, LABELS, Judgement, judgement_from_probabilities
from tests.support.toy_market import ToyMarket, grade_judgement, small_config

VALUES = torch.tensor([LABEL_VALUES[label] for label in LABELS])


def model_of(market: ToyMarket, applicants: int = 2, noise: float = 0.0) -> BayesWorldModel:
    names = list(market.cache.applicant_ids[:applicants])
    pool = WholeCatalogue(market.cache, names, torch.device("cpu"))
    return BayesWorldModel(CosinePrior(pool, VALUES), pool, VALUES, noise)


def pairs_of(market: ToyMarket, applicants: int = 2) -> JudgedPairs:
    return JudgedPairs(applicants, len(market.cache.job_ids), 30, torch.device("cpu"))


def told(market: ToyMarket, agent: int, jobs: list[int]) -> list[Judgement]:
    name = market.cache.applicant_ids[agent]
    ids = [market.cache.job_ids[j] for j in jobs]
    return [grade_judgement(name, job_id, market.grades[name][job_id]) for job_id in ids]


def tell(market: ToyMarket, pairs: JudgedPairs, agent: int, jobs: list[int]) -> None:
    pairs.add([agent] * len(jobs), jobs, told(market, agent, jobs))


def test_before_anything_is_judged_it_follows_the_cosine(market: ToyMarket) -> None:
    model = model_of(market)
    cosines = market.cache.calculate_cosine_similarities("ann00")
    assert np.argsort(model.mean[0].numpy()).tolist() == np.argsort(cosines).tolist()
    assert (model.deviation > 0.1).all()  # SURE bounds it from below


def test_an_answer_moves_jobs_that_resemble_the_judged_one(market: ToyMarket) -> None:
    model, pairs = model_of(market), pairs_of(market)
    before, unsure = model.mean.clone(), model.deviation.clone()
    grades = market.grades["ann00"]
    loved = [j for j, job_id in enumerate(market.cache.job_ids) if grades[job_id] == 3]
    tell(market, pairs, 0, loved[:1])
    model.observe(pairs)
    moved = (model.mean - before)[0]
    others = [j for j in range(60) if j not in loved]
    assert moved[loved[1:]].min() > 0.05
    assert moved[loved[1:]].min() > 2 * moved[others].abs().max()
    torch.testing.assert_close(model.mean[1], before[1], atol=1e-5, rtol=0)
    left = (model.deviation / unsure)[0]
    assert left[loved[1:]].max() < left[others].min()


def test_the_posterior_is_that_of_gaussian_process_regression(market: ToyMarket) -> None:
    """Against the textbook formula in float64 (Rasmussen & Williams 2006, eqs. 2.23 and 2.24)."""
    model, pairs = model_of(market, 1), pairs_of(market, 1)
    prior = model.mean[0].double()
    scale = deviation_of(model._static, VALUES)[0].double()
    jobs = [3, 17, 40, 41]
    tell(market, pairs, 0, jobs)
    model.observe(pairs)
    x = job_embedding(market.cache).double()
    kernel = PROCESS_VARIANCE * torch.exp(-(torch.cdist(x, x) ** 2) / (2 * SHIFT_SCALES[-1] ** 2))
    every = torch.ones(1, 4, dtype=torch.bool)
    seen = surprises(model._static[:, jobs], pairs.probabilities[:, :4], every, VALUES, AnswerNoise.random(0.0))
    surprise, own = (each[0].double() for each in seen)
    noisy = kernel[jobs][:, jobs] + torch.diag(own)
    shift = kernel[:, jobs] @ torch.linalg.solve(noisy, surprise)
    variance = PROCESS_VARIANCE - (kernel[:, jobs] * torch.linalg.solve(noisy, kernel[jobs]).T).sum(1)
    unjudged = [j for j in range(60) if j not in jobs]
    torch.testing.assert_close(model.mean[0, unjudged].double(), (prior + scale * shift)[unjudged], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.deviation[0].double(), scale * variance.sqrt(), atol=1e-3, rtol=0)


def test_a_trusted_judge_is_believed_to_the_letter(market: ToyMarket) -> None:
    model, pairs = model_of(market), pairs_of(market)
    tell(market, pairs, 0, [1, 5, 9])
    model.observe(pairs)
    torch.testing.assert_close(model.believed[0], pairs.rewards[0, :3])
    torch.testing.assert_close(model.mean[0, [1, 5, 9]], pairs.rewards[0, :3])


def test_a_noisy_judge_is_believed_less(market: ToyMarket) -> None:
    """One APPLY among jobs of a topic that were all ignored moves a wary model less than a trusting one."""
    name, grades = "ann00", market.grades["ann00"]
    bad = [j for j, job_id in enumerate(market.cache.job_ids) if grades[job_id] == 0][:8]
    outlier = judgement_from_probabilities(name, market.cache.job_ids[bad[-1]], (1, 0, 0, 0), judge="toy")
    believed = []
    for noise in (0.0, 0.1, 0.3, 0.6):
        model, pairs = model_of(market, 1, noise), pairs_of(market, 1)
        tell(market, pairs, 0, bad[:-1])
        pairs.add([0], [bad[-1]], [outlier])
        model.observe(pairs)
        believed.append(float(model.believed[0, -1]))
        assert float(model.mean[0, bad[-1]]) == pytest.approx(believed[-1])
    assert believed[0] == pytest.approx(1.0)
    assert believed == sorted(believed, reverse=True)
    assert believed[2] < 0.5


TOWARDS_CLICK = AnswerNoise(0.7 * torch.eye(4) + 0.3 * torch.eye(4)[2])


def test_a_random_share_of_answers_is_a_special_case_of_a_confusion() -> None:
    """An answer is genuine with probability w, or it says nothing: the truth is a mixture of the two."""
    predicted = torch.tensor([0.7, 0.1, 0.05, 0.15])
    for label in range(4):
        answer = torch.eye(4)[label]
        w = 0.7 * predicted[label] / (0.7 * predicted[label] + 0.3 / 4)
        torch.testing.assert_close(AnswerNoise.random(0.3).truth(predicted, answer), w * answer + (1 - w) * predicted)
        torch.testing.assert_close(AnswerNoise.random(0.0).truth(predicted, answer), answer)


def test_a_label_that_is_often_given_in_error_is_doubted_and_the_others_are_not() -> None:
    predicted = torch.tensor([0.25, 0.25, 0.25, 0.25])
    apply, click = (TOWARDS_CLICK.truth(predicted, torch.eye(4)[label]) for label in (0, 2))
    torch.testing.assert_close(apply, torch.eye(4)[0])
    torch.testing.assert_close(click, torch.tensor([0.3, 0.3, 1.0, 0.3]) / 1.9)


def test_an_answer_that_is_a_distribution_is_read_against_the_usual_mix() -> None:
    """A hesitant judge that says more APPLY than it does as a rule means APPLY."""
    usual = torch.tensor([0.1, 0.2, 0.3, 0.4])
    noise = AnswerNoise(torch.eye(4), usual)
    said = torch.tensor([[0.3, 0.2, 0.2, 0.3], [1.0, 0.0, 0.0, 0.0]])
    assert float(noise.read(said)[0, 0]) > 0.9
    assert torch.equal(noise.read(said)[1], said[1])
    assert torch.equal(AnswerNoise(torch.eye(4)).read(said), said)


@pytest.mark.parametrize(
    "noise", [AnswerNoise.random(0.0), AnswerNoise.random(0.3), TOWARDS_CLICK], ids=["none", "random", "towards CLICK"]
)
def test_a_surprise_is_the_score_of_the_answer_over_its_information(noise: AnswerNoise) -> None:
    static = torch.tensor([0.1, 0.2, 0.3, 0.4])
    beyond = (VALUES - static @ VALUES) / deviation_of(static, VALUES)

    def log_likelihood(shift: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(torch.log(static) + shift * beyond, dim=-1)
        return torch.log(p @ noise.confusion)

    scores = torch.autograd.functional.jacobian(log_likelihood, torch.zeros(()))
    information = static @ noise.confusion @ scores.square() + LEAST_INFORMATION
    every = torch.eye(4)[None]  # one agent whom four pairs alike were answered in each way
    pairs = static.expand(1, 4, 4)
    surprise, variance = surprises(pairs, every, torch.ones(1, 4, dtype=torch.bool), VALUES, noise)
    torch.testing.assert_close(surprise[0], scores / information)
    torch.testing.assert_close(variance, torch.full((1, 4), float(1 / information) + OBSERVATION_VARIANCE))


def test_the_answer_that_everybody_expected_says_little_and_a_persons_own_is_never_doubted() -> None:
    open_pair, hopeless = [0.25, 0.25, 0.25, 0.25], [0.001, 0.002, 0.002, 0.995]
    static = torch.tensor([[open_pair, hopeless, hopeless, hopeless]])
    answers = torch.eye(4)[[3, 3, 0, 0]][None]
    valid, real = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[False, False, False, True]])
    surprise, variance = surprises(static, answers, valid, VALUES, AnswerNoise.random(0.3), real)
    weight = surprise / variance
    assert weight[0, 0] < 10 * weight[0, 1] < 0
    assert weight[0, 3] > 10 * weight[0, 2] > 0
    empty = surprises(static, answers, torch.zeros_like(valid), VALUES, AnswerNoise.random(0.3))
    assert (empty[0] == 0).all()
    assert (empty[1] > 1e5).all()


def test_class_probabilities_are_a_distribution_that_follows_the_mean() -> None:
    mean = torch.tensor([1.0, 0.5, -0.1])
    p = class_probabilities(mean, torch.full_like(mean, 0.01), VALUES)
    torch.testing.assert_close(p.sum(-1), torch.ones(3))
    assert [LABELS[i] for i in p.argmax(-1).tolist()] == ["APPLY", "SAVE", "IGNORE"]


@pytest.mark.parametrize("usual", [None, torch.tensor([0.1, 0.1, 0.2, 0.6])], ids=["as they are", "read"])
def test_agents_that_advance_unevenly_know_the_same_as_alone(market: ToyMarket, usual: torch.Tensor | None) -> None:
    """One agent fills its second and third slots two rounds after the other, as when its judge abstained."""
    together, pairs = model_of(market), pairs_of(market)
    alone, own = model_of(market), pairs_of(market)
    together.noise = alone.noise = AnswerNoise.random(0.3, usual)
    for first, second in (([2], [7, 8, 9]), ([], [10, 11]), ([30, 31, 32], [])):
        tell(market, pairs, 0, first)
        tell(market, pairs, 1, second)
        tell(market, own, 0, first)
        together.observe(pairs)
        alone.observe(own)
        torch.testing.assert_close(together.mean[0], alone.mean[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.deviation[0], alone.deviation[0], atol=1e-5, rtol=0)


def test_what_it_knows_depends_on_the_pairs_and_not_on_when_it_was_told(market: ToyMarket) -> None:
    step_by_step, at_once = model_of(market), model_of(market)
    pairs = pairs_of(market)
    for jobs in ([4, 5], [20], [33, 34, 35]):
        tell(market, pairs, 0, jobs)
        step_by_step.observe(pairs)
    at_once.observe(pairs)
    assert torch.equal(step_by_step.mean, at_once.mean)
    assert torch.equal(step_by_step.believed, at_once.believed)


def test_a_block_in_pieces_is_the_block_whole(market: ToyMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = pairs_of(market, 5)
    for agent in range(5):
        tell(market, pairs, agent, [agent, agent + 10, agent + 20])
    whole, pieces = model_of(market, 5), model_of(market, 5)
    whole.observe(pairs)
    monkeypatch.setattr("dynaq.agent.bayes_world_model.CHUNK_BYTES", 1)
    pieces.observe(pairs)
    torch.testing.assert_close(pieces.mean, whole.mean, atol=1e-6, rtol=0)


def mlp_of(market: ToyMarket, **values: Any) -> tuple[MLPWorldModel, torch.Tensor]:
    names = list(market.cache.applicant_ids[:2])
    cosines = scaled_cosines(market.cache, names)
    generators = [agent_generator(0, name, "m") for name in names]
    inputs = InteractionInputs(pair_features(market.cache, names))
    return MLPWorldModel(inputs, cosines, generators, small_config(**values)), cosines


def test_the_mlp_model_starts_at_the_cosine_and_learns_what_was_judged(market: ToyMarket) -> None:
    model, cosines = mlp_of(market, warm_start_updates=400, model_updates=400)
    assert (model.mean - cosines).abs().mean() < 0.05
    pairs = pairs_of(market)
    jobs = list(range(0, 60, 3))
    tell(market, pairs, 0, jobs)
    model.observe(pairs)
    assert (model.mean[0, jobs] - pairs.rewards[0, : len(jobs)]).abs().mean() < 0.15
    assert (model.mean[1] - cosines[1]).abs().mean() < 0.05
    assert torch.equal(model.believed, pairs.rewards[:, : len(jobs)])
