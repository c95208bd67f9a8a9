"""The estimate of a judge: found without labels, humble without evidence, sharpened by labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynaq.agent.judge_table import (
    INTERCEPTS,
    SLOPES,
    Answers,
    JudgeTable,
    estimate,
    sharpened,
    unknown_judge,
    usual_mix,
)
from dynaq.agent.trust_world_model import joined

MISFIT = np.array([0.06, 0.08, 0.11, 0.75])
ROWS, AGENTS = 1200, 16


def pairs_of(confusion: np.ndarray, rows: int = ROWS, known: int = 0, seed: int = 3) -> tuple[Answers, np.ndarray]:
    """Answers of a judge on pairs whose truth follows the cosine, and the truth."""
    rng = np.random.default_rng(seed)
    phi = np.stack([rng.uniform(-1.5, 5.0, rows), np.ones(rows)], axis=1)
    logits = np.concatenate([phi @ np.stack([SLOPES, INTERCEPTS]), np.zeros((rows, 1))], axis=1)
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    truth = np.array([rng.choice(4, p=row) for row in p])
    labels = np.array([rng.choice(4, p=confusion[k]) for k in truth])
    anchors = np.full(rows, np.nan)
    anchors[:known] = truth[:known] < 3
    return Answers(phi, np.eye(4)[labels], np.arange(rows) % AGENTS, np.arange(rows) % 200, anchors), truth


def noisy(error: float) -> np.ndarray:
    return (1.0 - error) * np.eye(4) + error / 4.0


def converged(pairs: Answers) -> JudgeTable:
    return estimate(pairs, unknown_judge(pairs.phi.shape[1]), iterations=40)[1]


def true_rows(confusion: np.ndarray, truth: np.ndarray) -> np.ndarray:
    shares = np.bincount(truth[truth < 3], minlength=3) / max(1, (truth < 3).sum())
    return np.stack([confusion[3], shares @ confusion[:3]])


def error_of(table: JudgeTable, confusion: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(table.rows() - true_rows(confusion, truth)).mean())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_the_table_is_found_without_labels(share: float) -> None:
    pairs, truth = pairs_of(noisy(share))
    table = converged(pairs)
    assert error_of(table, noisy(share), truth) < 0.05
    assert table.trust == pytest.approx(1.0 - share, abs=0.12)


@pytest.mark.parametrize(("share", "believed"), [(0.0, True), (0.3, False)])
def test_a_judge_who_hardly_errs_is_believed_against_the_texts(share: float, believed: bool) -> None:
    pairs, _ = pairs_of(noisy(share))
    pairs.phi[0, 0] = -1.5  # far below the applicant's mean cosine
    pairs.answers[0] = [1.0, 0.0, 0.0, 0.0]
    truth = estimate(pairs, unknown_judge(pairs.phi.shape[1]), iterations=40)[2]
    assert (truth[0, :-1].sum() > 0.5) == believed


def test_a_judge_that_says_the_same_of_everything_is_not_believed() -> None:
    mix = np.array([0.4, 0.2, 0.1, 0.3])
    assert converged(pairs_of(np.tile(mix, (4, 1)))[0]).trust < 0.1


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_a_judge_without_signal_is_not_believed_about_degrees_of_fit(seed: int) -> None:
    """Classes that nothing but the judge's own answers tells apart must not form."""
    pairs, _ = pairs_of(np.tile([0.45, 0.05, 0.05, 0.45], (4, 1)), rows=400, seed=seed)
    confusion = estimate(pairs, unknown_judge(2), iterations=60)[0].confusion
    assert np.abs(confusion - confusion[3]).sum(1).max() / 2 < 0.06


@pytest.mark.parametrize(("seed", "with_cosine"), [(5, 0.1), (6, 0.05)])
def test_a_taste_that_other_similarities_follow_does_not_validate_itself(seed: int, with_cosine: float) -> None:
    """The judge likes jobs for a reason of its own; columns of phi follow that reason, the cosine hardly does."""
    pairs, _ = pairs_of(noisy(0.0), rows=600, seed=seed)
    rng = np.random.default_rng(seed)
    liking = rng.standard_normal(600) + with_cosine * pairs.phi[:, 0]
    phi = np.column_stack([pairs.phi, *(liking + 0.3 * rng.standard_normal(600) for _ in range(5))])
    labels = 3 - (liking[:, None] > [0.3, 0.2, 0.1]).sum(1)
    assert converged(Answers(phi, np.eye(4)[labels], pairs.agent, pairs.job, pairs.known)).trust < 0.5


def test_a_judge_that_contradicts_the_texts_is_neither_believed_nor_inverted() -> None:
    against = np.array([[0.05, 0.1, 0.1, 0.75]] * 3 + [[0.7, 0.1, 0.1, 0.1]])
    table = converged(pairs_of(against)[0])
    assert table.trust < 0.15
    assert table.fits[0] / table.not_fits[0] >= table.fits[3] / table.not_fits[3] - 0.1  # to rounding


def test_without_evidence_nobody_is_believed() -> None:
    few = Answers(
        np.array([[4.0, 1.0]]), np.eye(4)[:1], np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([np.nan])
    )
    assert converged(few).trust < 0.2


def test_known_pairs_sharpen_the_table() -> None:
    """The judge echoes the cosine and has no opinion of its own, which only labels can tell."""
    errors = {}
    for known in (0, 50, 400):
        pairs, truth = pairs_of(noisy(0.0), known=known)
        echo = 3 - (pairs.phi[:, :1] + np.random.default_rng(0).normal(0.0, 1.0, (ROWS, 1)) > [4.0, 3.0, 2.0]).sum(1)
        echoed = Answers(pairs.phi, np.eye(4)[echo], pairs.agent, pairs.job, pairs.known)
        fits = truth < 3
        true = np.stack([echoed.answers[~fits].mean(0), echoed.answers[fits].mean(0)])
        errors[known] = float(np.abs(converged(echoed).rows() - true).mean())
    assert errors[400] < errors[50] < errors[0]
    assert errors[400] < errors[0] - 0.01


def test_the_table_says_how_often_an_apply_is_right() -> None:
    pairs, truth = pairs_of(noisy(0.4))
    applied = pairs.answers[:, 0] == 1.0
    assert converged(pairs).apply_right == pytest.approx(float((truth[applied] < 3).mean()), abs=0.1)


def test_soft_answers_count_as_far_as_they_are_sure() -> None:
    pairs, _ = pairs_of(noisy(0.2))
    unsure = 0.3 * pairs.answers + 0.7 * pairs.answers.mean(0)
    soft = Answers(pairs.phi, unsure, pairs.agent, pairs.job, pairs.known)
    assert converged(soft).trust < converged(pairs).trust - 0.2


SURE = np.array(
    [(0.85, 0.10, 0.03, 0.02), (0.30, 0.45, 0.20, 0.05), (0.05, 0.20, 0.50, 0.25), (0.01, 0.04, 0.15, 0.80)]
)


def test_the_probabilities_of_a_judge_who_is_never_sure_are_read_as_what_it_means() -> None:
    """Read as labels drawn at random, they look like the answers of a judge who errs."""
    pairs, _ = pairs_of(noisy(0.1))
    soft = pairs.answers @ SURE
    read = converged(replace(pairs, answers=sharpened(soft, usual_mix(soft))))
    assert read.trust == pytest.approx(converged(pairs).trust, abs=0.1)
    assert converged(replace(pairs, answers=soft)).trust < read.trust - 0.2


def test_a_label_is_read_as_itself_and_the_usual_answer_as_the_usual_mix() -> None:
    mix = np.array([0.1, 0.2, 0.3, 0.4])
    assert sharpened(np.eye(4), mix) == pytest.approx(np.eye(4))
    assert sharpened(mix[None], mix) == pytest.approx(mix[None])


def test_labels_of_chosen_pairs_do_not_change_how_often_a_job_is_thought_to_fit() -> None:
    """Labels are mostly of jobs that fit; the catalogue is not."""
    pairs, _ = pairs_of(np.tile([0.4, 0.2, 0.1, 0.3], (4, 1)))
    chosen = Answers(
        phi=np.tile([0.0, 1.0], (50, 1)),
        answers=pairs.answers[:50],
        agent=np.full(50, AGENTS),
        job=np.arange(50),
        known=np.ones(50),
    )
    without, with_labels = (
        estimate(rows, unknown_judge(2), iterations=40)[0].theta for rows in (pairs, joined(pairs, chosen))
    )
    np.testing.assert_allclose(with_labels, without, atol=0.1)
