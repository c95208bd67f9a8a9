"""What `bench.judge` makes of its rounds, without a model."""

from __future__ import annotations

import numpy as np

from bench.judge import median_interval
from bench.judge_contenders import Pairs, marked
from dynaq.records import Candidate, Job

PAIRS: Pairs = [
    (Candidate(id=str(i), bio="Nurse."), [Job(id=f"{i}-{k}", title=f"job {k}") for k in range(3)]) for i in range(2)
]


def test_the_interval_contains_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for rounds in (6, 24):
        samples = rng.exponential(size=(4000, rounds))
        inside = [low <= np.log(2) <= high for _, low, high in map(median_interval, samples.tolist())]
        assert 0.95 <= np.mean(inside) <= 0.985


def test_a_round_has_as_many_pairs_as_asked_for_and_no_text_of_another_round() -> None:
    texts = set[str]()
    for word, count in (("a", 2), ("b", 7), ("c", 20)):
        calls = marked(PAIRS, word, count)
        assert sum(len(jobs) for _, jobs in calls) == count
        profiles, titles = {a.bio for a, _ in calls}, {job.title for _, jobs in calls for job in jobs}
        assert len({(a.bio, job.id, job.title) for a, jobs in calls for job in jobs}) == count
        assert not texts & (profiles | titles)
        texts |= profiles | titles
