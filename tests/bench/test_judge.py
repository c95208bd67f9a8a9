"""What `bench.judge` makes of its rounds, without a model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench import judge
from bench.judge import (
    BARE,
    CALLER,
    COMPARED_ROUNDS,
    KNOWN,
    ONE_BY_ONE,
    SERVED,
    Bench,
    median_interval,
    report,
    report_single,
)
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


class Asked:
    """A contender that answers at once and remembers what it was asked."""

    def __init__(self, log: list[tuple[str, Pairs]], name: str) -> None:
        self._log, self._name = log, name

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> None:
        self._log.append((self._name, [(applicant, list(jobs))]))

    def seconds(self, method: str, pairs: Pairs, **options: Any) -> float:
        self._log.append((self._name, pairs))
        return 0.5

    def pids(self) -> set[int]:
        return set()


def test_bare_vllm_and_the_service_get_the_same_new_pairs_in_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count(1)
    parts = (BARE, ONE_BY_ONE, CALLER, "the engine", "the API")
    monkeypatch.setattr(judge, "cpu_seconds", lambda peers: Counter({part: next(ticks) / 8 for part in parts}))
    monkeypatch.setattr(judge, "MOST_PAIRS", judge.FEWEST_PAIRS)
    log = list[tuple[str, Pairs]]()
    bench: Any = Bench(*(Asked(log, name) for name in (SERVED, SERVED, BARE, ONE_BY_ONE)))  # type: ignore[arg-type]
    for method, known in (("likelihood", True), ("choice", False)):
        log.clear()
        found = bench.rounds(method)
        assert (KNOWN in found) == known
        for i in range(COMPARED_ROUNDS):
            mine = [(name, pairs) for name, pairs in log if pairs[0][1][0].title.startswith(f"{method} {i}.")]
            (first, one), (second, two) = mine[:2]
            assert {first, second} == {BARE, SERVED}
            assert (first == BARE) == (i % 2 == 1)
            assert one == two
            assert len(one[0][1]) == judge.FEWEST_PAIRS
            alone = [pairs for name, pairs in mine if name == ONE_BY_ONE]
            assert alone == [[(one[0][0], one[0][1][: judge.TRANSFORMERS_PAIRS])]]
        report(method, found)
    report_single(*bench.single())
    printed = capsys.readouterr().out
    assert printed.count("service / bare vLLM, clock (aim 0.95)") == 2
    assert printed.count("every job met before") == 2  # its rate and its ratio, by likelihood alone
    assert "one warm pair of 24" in printed
