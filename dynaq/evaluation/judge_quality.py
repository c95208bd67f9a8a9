"""Can a judge be believed, and is it good enough to learn from? Two answers, on a market whose relevance is known.

`check_judge_table` puts the table that agents would estimate from the judge's answers, without labels, beside the true
one.

`gain_by_quality` finds out what learning is worth here: on the given catalogue and applicants it trains agents with
simulated judges of several AUCs, whose errors are random, and compares the nDCG@10 of their rankings with the cosine's.
`break_even` is the AUC above which the mean gain is positive, by linear interpolation. A real judge's errors are not
random: a consistent taste costs more than its AUC says, so the curve shows what a judge of that AUC may give at best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.judge_table import (
    ITERATIONS_TO_CONVERGE,
    Answers,
    JudgeTable,
    estimate,
    sharpened,
    unknown_judge,
    usual_mix,
)
from dynaq.agent.pair_features import scaled_cosines, similarity_features
from dynaq.agent.reward_strategy import make_strategy
from dynaq.evaluation.intervals import Interval, paired_difference
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.evaluation.run_quality import K
from dynaq.evaluation.simulated import LabelJudge, labels_of_quality
from dynaq.judging.judgement import LABELS, Judgement
from dynaq.qrels import Qrels
from dynaq.tensor_cache import TensorCache

QUALITIES = (0.6, 0.7, 0.8, 0.9, 0.95)
JUDGEMENTS = 30  # per applicant
MOST_APPLICANTS = 16
BELOW = "below the point from which learning from it helps on your catalogue"


@dataclass(frozen=True)
class TableCheck:
    """The table estimated without labels, and the true one.

    Args:
        estimated, true: with the share of the checked pairs that fit.
        error: mean absolute difference of their eight probabilities.
    """

    estimated: JudgeTable
    true: JudgeTable
    error: float


def check_judge_table(cache: TensorCache, judgements: Iterable[Judgement], qrels: Qrels) -> TableCheck | None:
    """Both tables on the judged pairs; None unless there are answers on jobs that fit and on jobs that do not.

    Abstentions, and pairs that the cache lacks, are left out.
    """
    jobs, known = set(cache.job_ids), set(cache.applicant_ids)
    kept = [j for j in judgements if not j.abstained and j.applicant_id in known and j.job_id in jobs]
    applicants = list(dict.fromkeys(j.applicant_id for j in kept))
    fits = np.array([qrels.grades(j.applicant_id).get(j.job_id, 0.0) > 0 for j in kept], bool)
    if fits.all() or not fits.any():
        return None
    phi = similarity_features(cache, applicants, scaled_cosines(cache, applicants)).double().numpy()
    agent = np.array([applicants.index(j.applicant_id) for j in kept], np.int64)
    job = np.array([cache.job_index(j.job_id) for j in kept], np.int64)
    answers = np.array([j.probabilities for j in kept], np.float64)
    answers = sharpened(answers, usual_mix(answers))
    pairs = Answers(phi[agent, job], answers, agent, job, np.full(len(kept), np.nan))
    _, estimated, _ = estimate(pairs, unknown_judge(phi.shape[2]), iterations=ITERATIONS_TO_CONVERGE)
    said = tuple(answers[fits].mean(0).tolist()), tuple(answers[~fits].mean(0).tolist())
    true = JudgeTable(*said, share_fits=float(fits.mean()), answers=len(kept), known=len(kept))
    return TableCheck(estimated, true, float(np.abs(estimated.rows() - true.rows()).mean()))


@dataclass(frozen=True)
class QualityCurve:
    """What agents gain over the cosine by the AUC of their judge.

    Args:
        aucs: of the simulated judges, rising.
        gains: nDCG@10 minus the cosine's, paired over applicants.
        cosine: the cosine's nDCG@10.
        applicants, judgements: how many were simulated, and the judgements of each.
    """

    aucs: tuple[float, ...]
    gains: tuple[Interval, ...]
    cosine: float
    applicants: int
    judgements: int

    @property
    def break_even(self) -> float | None:
        """AUC from which on learning helps: the first one if it always does, None if the last one does not."""
        means = [gain.mean for gain in self.gains]
        if means[-1] <= 0.0:
            return None
        last = max((i for i, mean in enumerate(means) if mean <= 0.0), default=None)
        if last is None:
            return self.aucs[0]
        step = -means[last] / (means[last + 1] - means[last])
        return self.aucs[last] + step * (self.aucs[last + 1] - self.aucs[last])


def gain_by_quality(
    cache: TensorCache,
    qrels: Qrels,
    config: DynaQConfig,
    *,
    aucs: Sequence[float] = QUALITIES,
    progress: Callable[[str], None] = lambda message: None,
) -> QualityCurve:
    """Train hybrid agents with a simulated judge of each AUC, on the first MOST_APPLICANTS that have relevant jobs.

    config: of the agents; its budget is replaced by JUDGEMENTS. Needs an applicant of the cache with relevant jobs.
    """
    config = config.model_copy(update={"budget": JUDGEMENTS, "block_size": MOST_APPLICANTS})
    known, jobs = set(cache.applicant_ids), cache.job_ids
    cohort = [a for a in qrels.applicants if a in known and any(g > 0 for g in qrels.grades(a).values())]
    cohort = cohort[:MOST_APPLICANTS]
    levels = np.array([[len(LABELS) - 1 - LABELS.index(qrels.label(a, job)) for job in jobs] for a in cohort], float)
    error = np.random.default_rng(config.seed).standard_normal(levels.shape)
    cosine = [ndcg_at_k([jobs[j] for j in cache.top_k(a, K)[0]], qrels.grades(a), K) for a in cohort]
    gains = []
    for auc in aucs:
        progress(f"agents with a judge of AUC {auc:g}")
        judge = LabelJudge(cache, cohort, labels_of_quality(levels, error, levels > 0, auc))
        block = DynaQBlock(cache, cohort, make_strategy("hybrid", config), config).fit(judge)
        ranked = [
            ndcg_at_k([job for job, _ in top], qrels.grades(a), K)
            for a, top in zip(cohort, block.recommendations(K), strict=True)
        ]
        gains.append(paired_difference(ranked, cosine).interval)
    return QualityCurve(tuple(aucs), tuple(gains), float(np.mean(cosine)), len(cohort), JUDGEMENTS)


def place_on_curve(curve: QualityCurve, low: float, high: float) -> str:
    """Where a judge whose AUC lies between `low` and `high` is on the curve, in words."""
    point = curve.break_even
    if point is None:
        return f"{BELOW}: not even a judge of AUC {curve.aucs[-1]:g} helped"
    if high < point:
        return f"{BELOW} (AUC {point:.2f})"
    known = f"AUC {point:.2f}" if point > curve.aucs[0] else f"AUC {point:.2f} or less"
    if low >= point:
        return f"learning from it helps on your catalogue from {known} on"
    return f"too close to tell to the point from which learning from it helps on your catalogue ({known})"
