"""The figures of `dynaq judge --check`, from judgements whose worth is known."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dynaq.errors import InputError
from dynaq.judging.judgement import Judgement, abstention, judgement_from_probabilities
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from jobs.terminal.method_checks import check_table
from reward_service.calibration import thresholds_from_scores
from reward_service.check import HALVES, WAYS, Sample, check_method, draw_samples, recommend, summarise, way_of, ways
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig

JOBS = {f"j{i}": Job(id=f"j{i}", title=f"title {i}") for i in range(20)}


def sample(applicant: str) -> Sample:
    jobs = tuple(JOBS.values())
    return Sample(Candidate(id=applicant, bio="x"), jobs, tuple(3.0 if i < 8 else 0.0 for i in range(20)))


def answers(applicant: str, rewards: list[float]) -> list[Judgement]:
    return [
        judgement_from_probabilities(applicant, f"j{i}", (r, 0.0, 0.0, 1 - r), judge="j", label_mass=0.5)
        for i, r in enumerate(rewards)
    ]


def test_a_judge_that_knows_is_recommended_and_one_that_guesses_is_warned_of() -> None:
    samples = [sample(str(i)) for i in range(4)]
    rng = np.random.default_rng(0)
    good = [answers(s.applicant.id, [0.9 if g else 0.1 for g in s.grades]) for s in samples]
    noise = [answers(s.applicant.id, list(rng.random(20))) for s in samples]
    knows, guesses = summarise("likelihood", samples, good, 2.0), summarise("choice", samples, noise, 2.0)
    assert (knows.auc, knows.ndcg, knows.per_second, knows.label_mass) == (1.0, 1.0, 40.0, 0.5)
    assert knows.labels == (0.4, 0.0, 0.0, 0.6)
    assert knows.better_than_chance
    assert not guesses.better_than_chance
    words = " ".join(recommend([knows, guesses], in_use="choice"))
    assert "method choice this model is no better than chance" in words
    assert "Recommended: method likelihood" in words
    assert "set `method: likelihood`" in words
    assert "No method works" in " ".join(recommend([guesses], in_use="choice"))


def test_another_method_is_recommended_only_where_the_pairs_tell_it_apart() -> None:
    samples, rng = [sample(str(i)) for i in range(4)], np.random.default_rng(0)

    def judged(name: str, noise: float) -> Any:
        rewards = [[(0.9 if g else 0.1) * (1 - noise) + noise * rng.random() for g in s.grades] for s in samples]
        given = [answers(s.applicant.id, one) for s, one in zip(samples, rewards, strict=True)]
        return summarise(name, samples, given, 1.0)

    near, nearer, far = judged("likelihood", 0.72), judged(HALVES, 0.68), judged("choice", 0.9)
    assert near.auc < nearer.auc
    assert far.auc < near.auc
    kept = " ".join(recommend([near, nearer, far], in_use="likelihood"))
    assert "Recommended: method likelihood (AUC" in kept
    assert "do not tell them apart" in kept
    assert "--calibrate" not in kept
    changed = " ".join(recommend([far, nearer], in_use="choice"))
    assert f"Recommended: method {HALVES}" in changed
    assert "--calibrate FILE" in changed


FITTED = JudgeConfig(halves=True, thresholds=thresholds_from_scores(list(range(60)), JudgeConfig(halves=True).scorer))


@pytest.mark.parametrize(
    "config",
    [JudgeConfig(), FITTED, JudgeConfig(method="choice", rotations=2), JudgeConfig(endpoint="http://x/v1", model="m")],
    ids=["packaged", "calibrated", "choice", "endpoint"],
)
def test_a_judge_can_be_asked_every_way_and_its_own_first(config: JudgeConfig) -> None:
    judge = ServeJudge(None, config.fingerprint)
    names = ways(config)
    assert names[0] == way_of(config)
    assert set(names) == set(WAYS) - ({HALVES} if config.endpoint else set())
    assert judge.variant(config, **WAYS[names[0]]).fingerprint == config.fingerprint
    assert len({judge.variant(config, **WAYS[name]).fingerprint for name in names}) == len(names)


class Scores:
    """A judge whose scores are the relevance, in a unit that the configuration's cut points do not know."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config

    def variant(self, config: JudgeConfig, **fields: Any) -> Scores:
        return Scores(JudgeConfig(**(config.model_dump(exclude_none=True) | fields)))

    async def scores(self, applicant: Candidate, jobs: Sequence[Job]) -> list[float]:
        assert self.config.halves
        return [math.nan if job.id == "j19" else 1000.0 + int(job.id[1:]) for job in jobs]


def test_a_way_that_is_not_the_judges_own_gets_its_cut_points_from_these_pairs() -> None:
    samples, config = [sample(str(i)) for i in range(4)], JudgeConfig()
    found = asyncio.run(check_method(Scores(config), config, HALVES, samples))  # type: ignore[arg-type]
    assert (found.auc, found.abstained, found.fitted_here, found.per_second) == (0.0, 4, True, None)
    assert {judgement.label for judgement in found.judgements} == {"APPLY", "SAVE", "CLICK", "IGNORE", None}
    [name] = {judgement.judge for judgement in found.judgements}
    assert name not in {config.fingerprint, FITTED.fingerprint}
    console = Console(width=200)
    with console.capture() as shown:
        console.print(check_table([found]))
    assert "APPLY" in shown.get()
    assert "–" in shown.get()


def test_one_applicant_is_enough_for_an_interval() -> None:
    found = summarise("choice", [sample("a")], [answers("a", [0.5] * 20)], 1.0)
    assert (found.auc, found.low, found.high) == (0.5, 0.5, 0.5)
    mixed = summarise("choice", [sample("a")], [answers("a", list(np.random.default_rng(1).random(20)))], 1.0)
    assert mixed.low < mixed.auc < mixed.high


def test_an_abstention_is_counted_and_moves_no_figure() -> None:
    judged = answers("a", [0.9 if i < 8 else 0.1 for i in range(20)])
    judged[3] = abstention("a", "j3", judge="j", note="cannot")
    found = summarise("likelihood", [sample("a")], [judged], 1.0)
    assert (found.abstained, found.auc, found.label_mass) == (1, 1.0, 0.5)


def test_the_effect_of_option_order_is_the_largest_move_of_a_label() -> None:
    steady = np.full((3, 4, 4), 0.25)
    moved = steady.copy()
    moved[0, 0], moved[0, 1] = (0.7, 0.1, 0.1, 0.1), (0.1, 0.7, 0.1, 0.1)
    args = ("choice", [sample("a")], [answers("a", [0.5] * 20)], 1.0)
    assert summarise(*args, steady).order_effect == 0.0
    assert summarise(*args, moved).order_effect == pytest.approx(0.6 / 3)
    assert summarise(*args, moved).order_flips == pytest.approx(1 / 3)


def test_samples_hold_both_sides_and_are_the_same_for_a_seed() -> None:
    people = [Candidate(id="a", bio="x"), Candidate(id="nobody", bio="x")]
    qrels = Qrels({"a": {"j1": 3.0, "j2": 1.0, "not there": 3.0}})
    [drawn] = draw_samples(people, JOBS, qrels, per_applicant=6)
    assert sorted(g for g in drawn.grades if g) == [1.0, 3.0]
    assert len(drawn.jobs) == 6
    assert [drawn] == draw_samples(people, JOBS, qrels, per_applicant=6)
    with pytest.raises(InputError, match="relevance"):
        draw_samples(people[1:], JOBS, qrels)
