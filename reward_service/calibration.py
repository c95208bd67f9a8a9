"""Fitting the cut points of `likelihood`: which scores are high for this model on this catalogue?

No relevance is used. Random (applicant, job) pairs represent what applicants see when nothing has been selected for
them, most of which they ignore. The cut points are quantiles of the scores of such pairs, so that 5 % of them are
APPLY, 10 % SAVE, 15 % CLICK and the rest IGNORE.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from dynaq.errors import InputError
from dynaq.records import Candidate, Job
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig, Thresholds

Scorer = Callable[[Candidate, Sequence[Job]], Awaitable[list[float]]]

SHARES = {"apply": 0.05, "save": 0.10, "click": 0.15}
PAIRS = 400
LEAST_SCORES = 50  # with fewer scores, the top 5 % would be only one or two pairs


def random_pairs(
    applicants: Sequence[Candidate], jobs: Sequence[Job], n: int, seed: int = 0
) -> list[tuple[Candidate, list[Job]]]:
    """`n` seeded random pairs, grouped by applicant. Raises InputError without applicants or jobs."""
    if not applicants or not jobs:
        raise InputError("calibration needs at least one applicant and one job with text; ingest some first")
    rng = np.random.default_rng(seed)
    groups: dict[int, list[Job]] = {}
    for a, j in zip(rng.integers(len(applicants), size=n), rng.integers(len(jobs), size=n), strict=True):
        groups.setdefault(int(a), []).append(jobs[int(j)])
    return [(applicants[a], group) for a, group in sorted(groups.items())]


def thresholds_from_scores(scores: Sequence[float], scorer: str) -> Thresholds:
    """Cut points at the quantiles given by SHARES, rounded to the precision of such a sample.

    The scale of the logistic steps is half the narrowest band between cut points, so that each label is the likeliest
    one for some scores. Raises InputError on too few scores.
    """
    if len(scores) < LEAST_SCORES:
        raise InputError(f"calibration has {len(scores)} scores; at least {LEAST_SCORES} are needed")
    apply, save, click = np.quantile(scores, 1 - np.cumsum(list(SHARES.values())))
    scale = max(float(min(apply - save, save - click)) / 2, 0.01)
    cuts = {"apply": float(apply), "save": float(save), "click": float(click), "scale": scale}
    return Thresholds(**{name: round(value, 3) for name, value in cuts.items()}, scorer=scorer)


async def fit_thresholds(
    score: Scorer,
    scorer: str,
    applicants: Sequence[Candidate],
    jobs: Sequence[Job],
    *,
    pairs: int = PAIRS,
    seed: int = 0,
) -> Thresholds:
    """Fit thresholds on random pairs.

    score: `LLMJudge.scores` or `ServeJudge.scores`.
    scorer: its `JudgeConfig.scorer`.
    Raises InputError on too few scores.
    """
    scored = await asyncio.gather(*(score(*pair) for pair in random_pairs(applicants, jobs, pairs, seed)))
    return thresholds_from_scores([s for group in scored for s in group if math.isfinite(s)], scorer)


def calibrated(config: JudgeConfig, thresholds: Thresholds) -> JudgeConfig:
    """The configuration with these cut points. Its fingerprint differs, so its judgements are not mixed with others."""
    return config.model_copy(update={"thresholds": thresholds})


async def fit_judge(
    judge: ServeJudge, config: JudgeConfig, applicants: Sequence[Candidate], jobs: Sequence[Job], pairs: int = PAIRS
) -> JudgeConfig:
    """The judge that `config` becomes for these applicants and jobs.

    Long postings are condensed, title and skills are scored apart where the engine is our own, and the thresholds are
    fitted on these scores.

    judge: runs `config`. Raises InputError on too few scores, JudgeError.
    """
    fields = {"condense": True, "halves": config.endpoint is None}
    prepared = config.model_copy(update=fields)
    score = judge.variant(config, **fields).scores
    return calibrated(prepared, await fit_thresholds(score, prepared.scorer, applicants, jobs, pairs=pairs))
