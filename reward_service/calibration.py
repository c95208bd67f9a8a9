"""Fitting the cut points of `likelihood`: what score is high for this model on this catalogue?

No relevance enters. Random (applicant, job) pairs stand for what people meet when nothing has been selected for them,
and most of it they pass by: the cut points are quantiles of their scores, so that of random pairs 5 % are APPLY, 10 %
SAVE, 15 % CLICK and the rest IGNORE.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from dynaq.errors import InputError
from dynaq.records import Candidate, Job
from reward_service.config import JudgeConfig, Thresholds

Scorer = Callable[[Candidate, Sequence[Job]], Awaitable[list[float]]]

SHARES = {"apply": 0.05, "save": 0.10, "click": 0.15}
FEWEST = 50  # below it the 5 % quantile rests on one or two pairs


def random_pairs(
    candidates: Sequence[Candidate], jobs: Sequence[Job], n: int, seed: int = 0
) -> list[tuple[Candidate, list[Job]]]:
    """`n` pairs drawn without regard to fit, grouped by applicant; the same for the same seed."""
    if not candidates or not jobs:
        raise InputError("calibration needs at least one applicant and one job with text; ingest some first")
    rng = np.random.default_rng(seed)
    groups: dict[int, list[Job]] = {}
    for a, j in zip(rng.integers(len(candidates), size=n), rng.integers(len(jobs), size=n), strict=True):
        groups.setdefault(int(a), []).append(jobs[int(j)])
    return [(candidates[a], group) for a, group in sorted(groups.items())]


def thresholds_from_scores(scores: Sequence[float], scorer: str) -> Thresholds:
    """Cut points at the quantiles that SHARES leaves, rounded to what a sample of this size can tell.

    The logistic steps are half as wide as the narrowest band, so that each label is the likeliest one somewhere.
    Raises InputError on too few scores.
    """
    if len(scores) < FEWEST:
        raise InputError(f"calibration has {len(scores)} scores; at least {FEWEST} are needed")
    apply, save, click = np.quantile(scores, 1 - np.cumsum(list(SHARES.values())))
    scale = max(float(min(apply - save, save - click)) / 2, 0.01)
    cuts = {"apply": float(apply), "save": float(save), "click": float(click), "scale": scale}
    return Thresholds(**{name: round(value, 3) for name, value in cuts.items()}, scorer=scorer)


async def fit_thresholds(
    score: Scorer, scorer: str, candidates: Sequence[Candidate], jobs: Sequence[Job], *, pairs: int = 400, seed: int = 0
) -> Thresholds:
    """Score random pairs (`LLMJudge.scores`, `ServeJudge.scores`) and cut; `scorer` is the configuration's."""
    scored = await asyncio.gather(*(score(*pair) for pair in random_pairs(candidates, jobs, pairs, seed)))
    return thresholds_from_scores([s for group in scored for s in group if math.isfinite(s)], scorer)


def calibrated(config: JudgeConfig, thresholds: Thresholds) -> JudgeConfig:
    """The same judge with these cut points; its fingerprint differs, so its ledger starts anew."""
    return config.model_copy(update={"thresholds": thresholds})
