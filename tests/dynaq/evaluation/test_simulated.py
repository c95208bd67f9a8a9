from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynaq.evaluation.ranking import auc
from dynaq.evaluation.simulated import VALUES, LabelJudge, labels_of_quality
from dynaq.judging.judgement import Slate
from tests.support.toy_market import toy_market


@pytest.mark.parametrize("target", [0.5, 0.7, 0.9, 0.99])
def test_a_judge_has_the_quality_that_was_asked_for(target: float) -> None:
    rng = np.random.default_rng(0)
    grades = rng.choice(4, size=(20, 200), p=[0.9, 0.04, 0.03, 0.03]).astype(float)
    labels = labels_of_quality(grades, rng.standard_normal(grades.shape), grades > 0, target)
    values = VALUES[labels]
    assert auc(values[grades > 0], values[grades == 0]) == pytest.approx(target, abs=0.02)


def test_a_judge_answers_with_its_labels_in_the_order_asked(tmp_path: Path) -> None:
    cache = toy_market(tmp_path, jobs=5, applicants=2).cache
    labels = np.arange(10).reshape(2, 5) % 4
    judge = LabelJudge(cache, cache.applicant_ids, labels)
    [answers] = judge.fetch([Slate(cache.applicant_ids[1], (cache.job_ids[3], cache.job_ids[0]))])
    assert [(j.job_id, j.label) for j in answers] == [(cache.job_ids[3], "APPLY"), (cache.job_ids[0], "SAVE")]
