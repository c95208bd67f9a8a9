from __future__ import annotations

import numpy as np
import pytest
import torch

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.pretraining.label_networks import Classifier, PairClassifier, Scaling, fit_classifier, principal_directions

APPLICANTS, JOBS, DIM = 60, 80, 12


def labels(truth: torch.Tensor, noise: float, seed: int = 0) -> torch.Tensor:
    """One-hot `[rows, 4]` answers of a judge that errs."""
    rng = np.random.default_rng(seed)
    wrong = torch.from_numpy(rng.random(len(truth)) < noise)
    random = torch.from_numpy(rng.integers(0, 4, len(truth)))
    return torch.eye(4)[torch.where(wrong, random, truth)]


def test_a_fit_starts_at_the_genuine_share_of_each_label() -> None:
    answers = labels(torch.tensor([0] * 100 + [3] * 9900), noise=0.3)
    network = Classifier(2, 8)
    with torch.no_grad():
        network.net[-1].weight.zero_()
    network.expect(answers, AnswerNoise.random(0.3))
    p = network(torch.randn(5, 2))
    torch.testing.assert_close(p[:, 0], torch.full((5,), 0.01), atol=0.01, rtol=0)
    assert (p[:, 3] > 0.96).all()


def test_a_scaling_makes_predictions_calibrated_though_the_judge_errs() -> None:
    rng = torch.Generator().manual_seed(1)
    truth = torch.softmax(3.0 * torch.randn(20_000, 4, generator=rng) + torch.tensor([-3.0, 0, 0, 2]), dim=-1)
    drawn = torch.multinomial(truth, 1, generator=rng).squeeze(1)
    timid = torch.softmax(0.5 * torch.log(truth) + torch.tensor([1.0, 0, 0, 0]), dim=-1)
    scaling = Scaling.fitted(timid, labels(drawn, noise=0.3), AnswerNoise.random(0.3))
    before, after = (timid - truth).abs().mean(0), (scaling(timid) - truth).abs().mean(0)
    assert (after < 0.1 * before).all()
    torch.testing.assert_close(Scaling()(timid), timid, atol=1e-6, rtol=0)


def test_a_correction_is_the_probabilities_themselves_until_it_is_fitted() -> None:
    p = torch.softmax(torch.randn(7, 4), dim=-1)
    x = torch.cat([torch.log(p), torch.randn(7, 3)], dim=1)
    network = Classifier(7, 8, corrects=True)
    network.standardise(x)
    torch.testing.assert_close(network(x), p)


@pytest.mark.slow
def test_rare_answers_stay_rare_though_the_judge_errs() -> None:
    """One pair in two hundred suits, and it can be told from x; nine answers in ten of that label are false."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.exponential(size=(20_000, 1)).astype(np.float32))
    truth = torch.where(x[:, 0] > 5.3, 0, 3)
    network = Classifier(1, 8)
    network.standardise(x)
    answers, noise = labels(truth, noise=0.3), AnswerNoise.random(0.3)
    network.expect(answers, noise)
    fit_classifier(network, lambda rows: network(x[rows]), answers, torch.arange(len(x)) % 50, noise, seed=0)
    assert network(torch.tensor([[0.5], [1.0], [2.0]]))[:, 0].max() < 0.02
    assert network(torch.tensor([[7.0]]))[0, 0] > 0.5


def test_a_label_that_the_judge_gives_in_error_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three answers in ten are CLICK whatever the pair; another fit that knows only how many are wrong learns CLICK."""
    monkeypatch.setattr("dynaq.pretraining.label_networks.TRAINING_STEPS", 200)
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.standard_normal((6000, 1)).astype(np.float32))
    truth = torch.where(x[:, 0] > 1.0, 0, 3)
    answers = torch.eye(4)[torch.where(torch.from_numpy(rng.random(6000) < 0.3), 2, truth)]
    towards_click = AnswerNoise(0.7 * torch.eye(4) + 0.3 * torch.eye(4)[2])

    def click(noise: AnswerNoise) -> float:
        torch.manual_seed(0)
        network = Classifier(1, 8)
        network.standardise(x)
        network.expect(answers, noise)
        fit_classifier(network, lambda rows: network(x[rows]), answers, torch.arange(len(x)) % 50, noise, seed=0)
        return float(network(x)[:, 2].mean())

    assert click(towards_click) < 0.02
    assert click(AnswerNoise.random(0.4)) > 0.1


@pytest.mark.slow
def test_the_metric_learns_what_the_similarities_do_not_say() -> None:
    """Who suits what depends on the product of one coordinate; the features are random."""
    rng = np.random.default_rng(2)
    states = torch.from_numpy(rng.standard_normal((APPLICANTS, 2, DIM)).astype(np.float32)) / DIM**0.5
    actions = torch.from_numpy(rng.standard_normal((JOBS, 3, DIM)).astype(np.float32)) / DIM**0.5
    applicant = torch.arange(APPLICANTS).repeat_interleave(JOBS)
    job = torch.arange(JOBS).repeat(APPLICANTS)
    suits = states.mean(1)[applicant, 3] * actions.mean(1)[job, 3] > 0
    answers = labels(torch.where(suits, 0, 3), noise=0.0)
    features = torch.randn(len(job), 2)
    torch.manual_seed(0)
    network = PairClassifier(2, 16, 2, 3, DIM, 8)
    network.classifier.standardise(features)
    network.classifier.expect(answers, AnswerNoise.random(0.0))

    def predict(rows: torch.Tensor) -> torch.Tensor:
        s, a = network.project_states(states[applicant[rows]]), network.project_actions(actions[job[rows]])
        return network(features[rows], s, a)

    fit_classifier(network, predict, answers, applicant, AnswerNoise.random(0.0), seed=0)
    right = (predict(torch.arange(len(job)))[:, 0] > 0.5) == suits
    assert right.float().mean() > 0.8


def test_principal_directions_are_orthonormal_and_ordered() -> None:
    rng = np.random.default_rng(3)
    scale = torch.tensor([1.0, 5.0, 0.1, 3.0])
    rows = torch.from_numpy(rng.standard_normal((500, 4)).astype(np.float32)) * scale
    found = principal_directions(rows, 2)
    torch.testing.assert_close(found.T @ found, torch.eye(2), atol=1e-5, rtol=0)
    assert found.abs().argmax(0).tolist() == [1, 3]
    assert found.is_contiguous()


@pytest.mark.parametrize("blocks", [(1, 2), (3, 5)])
def test_a_projection_weighs_the_blocks(blocks: tuple[int, int]) -> None:
    network = PairClassifier(1, 4, *blocks, 6, 2)
    states = torch.randn(9, blocks[0], 6)
    torch.testing.assert_close(network.project_states(states), 8.0 * states.mean(1)[:, :2], atol=1e-5, rtol=1e-5)
