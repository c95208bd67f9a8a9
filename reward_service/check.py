"""Quality of a judge on pairs whose relevance is known, for each way of asking on the same engine.

A small model may answer the letter question at random and still tell by likelihood which job fits which applicant.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dynaq.errors import InputError
from dynaq.evaluation.ranking import auc, ndcg_at_k
from dynaq.judging.judgement import LABELS, Judgement, abstention, judgement_from_probabilities
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from reward_service.calibration import calibrated, thresholds_from_scores
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.llm_judge import label_probabilities

Rewards = npt.NDArray[np.float64]

HALVES = "likelihood, halves"
WAYS: Mapping[str, Mapping[str, Any]] = {  # of asking one engine; a judge's configuration is one of them
    "likelihood": {"method": "likelihood", "halves": False},
    HALVES: {"method": "likelihood", "halves": True},
    "choice": {"method": "choice", "halves": False},
}
CHANGE = {  # what makes a judge ask that way
    "likelihood": "set `method: likelihood` in its configuration",
    HALVES: "`dynaq judge --calibrate FILE` makes one that does, from one with `method: likelihood`",
    "choice": "set `method: choice` in its configuration",
}
ORDER_PAIRS = 32  # pairs on which the four orders of the options are compared, at four answers each


@dataclass(frozen=True)
class Sample:
    """One applicant, jobs to show them, and the relevance grade of each."""

    applicant: Candidate
    jobs: tuple[Job, ...]
    grades: tuple[float, ...]


@dataclass(frozen=True)
class MethodCheck:
    """The figures of one way of asking.

    Args:
        method: its name, of WAYS.
        auc: probability that a relevant job earns more than an irrelevant one of the same applicant; a tie counts half.
        low, high: 95 % bootstrap interval of the AUC, over applicants and over the jobs of each applicant.
        ndcg: nDCG@10 of the shown jobs ranked by reward, mean over applicants.
        label_mass: mean probability on the four labels before normalising.
        labels: share of pairs by likeliest label, in the order of LABELS.
        abstained: pairs without an answer.
        per_second: judgements per second; None where the engine had met the prompts before.
        order_effect: mean over pairs of the largest difference of a label's probability between orders of the options;
            None for `likelihood`, which has no options.
        order_flips: share of pairs whose likeliest label depends on the order; None for `likelihood`.
        fitted_here: whether the cut points were fitted on these very pairs, so that the labels' shares say nothing.
        judgements: all answers, abstentions included.
    """

    method: str
    auc: float
    low: float
    high: float
    ndcg: float
    label_mass: float
    labels: tuple[float, ...]
    abstained: int
    per_second: float | None
    order_effect: float | None = None
    order_flips: float | None = None
    fitted_here: bool = False
    judgements: tuple[Judgement, ...] = ()

    @property
    def better_than_chance(self) -> bool:
        """Whether the whole interval is above 0.5."""
        return self.low > 0.5


def draw_samples(
    applicants: Sequence[Candidate], jobs: Mapping[str, Job], qrels: Qrels, *, per_applicant: int = 24, seed: int = 0
) -> list[Sample]:
    """For each applicant at most half relevant jobs, the rest irrelevant.

    Raises InputError when no applicant has both kinds.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for applicant in applicants:
        grades = qrels.grades(applicant.id)
        relevant = sorted(job_id for job_id, grade in grades.items() if grade > 0 and job_id in jobs)
        irrelevant = sorted(job_id for job_id in jobs if not grades.get(job_id, 0) > 0)
        if not relevant or not irrelevant:
            continue
        chosen = [*_some(rng, relevant, per_applicant // 2)]
        chosen += _some(rng, irrelevant, per_applicant - len(chosen))
        rng.shuffle(chosen)
        samples.append(Sample(applicant, tuple(jobs[j] for j in chosen), tuple(grades.get(j, 0.0) for j in chosen)))
    if not samples:
        raise InputError("no applicant has both a relevant and an irrelevant job; give relevance with --qrels")
    return samples


def _some(rng: np.random.Generator, ids: Sequence[str], n: int) -> list[str]:
    return [ids[i] for i in rng.permutation(len(ids))[:n]]


def way_of(config: JudgeConfig) -> str:
    """The way that a judge's configuration asks."""
    return HALVES if config.halves else config.method_name


def ways(config: JudgeConfig) -> list[str]:
    """The ways that its engine can be asked, the configuration's own first: it needs nothing that another left."""
    known = [way for way, fields in WAYS.items() if not (fields["halves"] and config.endpoint)]
    return sorted(known, key=lambda way: way != way_of(config))


async def check_method(judge: ServeJudge, config: JudgeConfig, method: str, samples: Sequence[Sample]) -> MethodCheck:
    """Judge every sample in one way on the judge's engine. Raises JudgeError, InputError on too few pairs to fit."""
    fields = WAYS[method]
    if method != way_of(config) and fields["method"] == "likelihood":
        answers = await _judged_by_scores(judge, config, fields, samples)
        return replace(summarise(method, samples, answers, None), fitted_here=True)
    variant = judge.variant(config, **fields)
    began = time.perf_counter()
    answers = await asyncio.gather(*(variant.judge_async(sample.applicant, sample.jobs) for sample in samples))
    seconds = time.perf_counter() - began
    orders = await _orders(variant, samples) if method == "choice" else None
    return summarise(method, samples, answers, seconds, orders)


async def _judged_by_scores(
    judge: ServeJudge, config: JudgeConfig, fields: Mapping[str, Any], samples: Sequence[Sample]
) -> list[list[Judgement]]:
    """Judgements by `likelihood` with cut points fitted on these pairs: the configuration's are of other scores."""
    bare = config.model_copy(update={**fields, "thresholds": None})
    variant = judge.variant(config, **fields, thresholds=None)
    scored = await asyncio.gather(*(variant.scores(sample.applicant, sample.jobs) for sample in samples))
    cut = thresholds_from_scores([x for group in scored for x in group if math.isfinite(x)], bare.scorer)
    name = calibrated(bare, cut).fingerprint

    def judgement(applicant: str, job: str, score: float) -> Judgement:
        if not math.isfinite(score):
            return abstention(applicant, job, judge=name, note="the pair cannot be scored")
        p = label_probabilities(score, cut)
        return judgement_from_probabilities(
            applicant, job, p, judge=name, label_mass=1.0, values=config.label_values, note=""
        )

    return [
        [judgement(sample.applicant.id, job.id, score) for job, score in zip(sample.jobs, group, strict=True)]
        for sample, group in zip(samples, scored, strict=True)
    ]


async def _orders(judge: ServeJudge, samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    """Distributions `[pairs, orders, labels]` for a few pairs of each applicant."""
    each = max(1, ORDER_PAIRS // len(samples))
    some = samples[:ORDER_PAIRS]
    found = await asyncio.gather(*(judge.orders(sample.applicant, sample.jobs[:each]) for sample in some))
    return np.array([pair for group in found for pair in group])


def summarise(
    method: str,
    samples: Sequence[Sample],
    answers: Sequence[Sequence[Judgement]],
    seconds: float | None,
    orders: npt.NDArray[np.float64] | None = None,
) -> MethodCheck:
    """The figures of one method from its judgements; abstentions enter only `abstained`."""
    sides, ndcgs, labels, masses = [], [], [], []
    total = 0
    for sample, judged in zip(samples, answers, strict=True):
        total += len(judged)
        kept = [(j, g) for j, g in zip(judged, sample.grades, strict=True) if j.reward is not None]
        rewards, grades = np.array([j.reward for j, _ in kept]), np.array([g for _, g in kept])
        sides.append((rewards[grades > 0], rewards[grades <= 0]))
        ranked = sorted(kept, key=lambda pair: (-(pair[0].reward or 0.0), pair[0].job_id))
        ndcgs.append(ndcg_at_k([j.job_id for j, _ in ranked], {j.job_id: g for j, g in kept}, 10))
        labels += [j.label for j, _ in kept]
        masses += [j.label_mass for j, _ in kept]
    low, high = _interval(sides)
    return MethodCheck(
        method=method,
        auc=_mean_auc(sides),
        low=low,
        high=high,
        ndcg=float(np.nanmean(ndcgs)),
        label_mass=float(np.mean(masses)) if masses else 0.0,
        labels=tuple(labels.count(label) / max(1, len(labels)) for label in LABELS),
        abstained=total - len(labels),
        per_second=None if seconds is None else total / seconds,
        order_effect=None if orders is None else float(np.ptp(orders, axis=1).max(axis=1).mean()),
        order_flips=None if orders is None else float(np.mean(np.ptp(orders.argmax(axis=2), axis=1) > 0)),
        judgements=tuple(judgement for judged in answers for judgement in judged),
    )


def _mean_auc(sides: Sequence[tuple[Rewards, Rewards]]) -> float:
    values = [auc(*side) for side in sides]
    return float(np.nanmean(values)) if not np.all(np.isnan(values)) else float("nan")


def _interval(sides: Sequence[tuple[Rewards, Rewards]], draws: int = 500) -> tuple[float, float]:
    """95 % two-level bootstrap interval of the mean AUC: applicants are drawn, then their jobs (Davison 1997, 3.8)."""
    known = [(a, b) for a, b in sides if len(a) and len(b)]
    if not known:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)

    def once() -> float:
        drawn = (known[i] for i in rng.integers(len(known), size=len(known)))
        return float(np.mean([auc(rng.choice(a, len(a)), rng.choice(b, len(b))) for a, b in drawn]))

    means = [once() for _ in range(draws)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def recommend(checks: Sequence[MethodCheck], in_use: str) -> list[str]:
    """Advice for the user, in sentences.

    in_use: the way that the judge's configuration asks. Another one is recommended only where its whole interval is
        above the AUC of this one, since a change makes another judge, whose every answer is to be paid for anew.
    """
    best = max(checks, key=lambda check: check.auc)
    words = []
    for check in checks:
        if not check.better_than_chance:
            words.append(
                f"WARNING: with method {check.method} this model is no better than chance "
                f"(AUC {check.auc:.2f}, and 0.50 is a coin). Rewards from it would teach nothing."
            )
        if check.order_flips is not None and check.order_flips > 0.5:
            words.append(
                f"WARNING: with method {check.method} the order of the options decides {check.order_flips:.0%} of the "
                "answers. Use rotations: 4, or another method."
            )
    if not best.better_than_chance:
        return [*words, "No method works with this model. Use a larger instruct model, or the cosine strategy."]
    used = next((check for check in checks if check.method == in_use), best)
    if used is not best and used.better_than_chance and best.low <= used.auc:
        words.append(
            f"Recommended: method {in_use} (AUC {used.auc:.2f}), which this judge uses. Method {best.method} has "
            f"{best.auc:.2f} ({best.low:.2f} to {best.high:.2f}): these pairs do not tell them apart."
        )
        return words
    words.append(f"Recommended: method {best.method} (AUC {best.auc:.2f}).")
    if best.method != in_use:
        words.append(f"This judge uses {in_use}; {CHANGE[best.method]}.")
    return words
