from __future__ import annotations

from collections import Counter

import pytest

from dynaq.judging.judgement import LABEL_VALUES, LABELS, abstention, judgement_from_probabilities
from dynaq.judging.sampled import chance, draw


def test_labels_are_drawn_as_often_as_the_judge_says() -> None:
    p = (0.1, 0.2, 0.3, 0.4)
    drawn = Counter(draw(judgement_from_probabilities("ann", f"j{i}", p, judge="x"), 0).label for i in range(4000))
    for label, probability in zip(LABELS, p, strict=True):
        assert drawn[label] / 4000 == pytest.approx(probability, abs=0.03)


def test_a_person_answers_the_same_job_the_same_and_is_somebody_else_under_another_seed() -> None:
    pairs = [judgement_from_probabilities("ann", f"j{i}", (0.25,) * 4, judge="x") for i in range(50)]
    answers = [[draw(pair, seed).label for pair in pairs] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_the_reward_is_the_drawn_labels_value() -> None:
    for i in range(20):
        drawn = draw(judgement_from_probabilities("ann", f"j{i}", (0.25,) * 4, judge="x"), 0)
        assert drawn.label is not None
        assert drawn.reward == LABEL_VALUES[drawn.label]


def test_a_certain_answer_is_given_and_an_abstention_stays_one() -> None:
    for i in range(20):
        assert draw(judgement_from_probabilities("ann", f"j{i}", (0, 0, 1, 0), judge="x"), i).label == "CLICK"
    assert draw(abstention("ann", "j", judge="x", note=""), 0).abstained


def test_parts_are_told_apart() -> None:
    assert chance(0, "ab", "c") != chance(0, "a", "bc")
