"""How good the agents' lists are while they learn: the one loop of every benchmark that trains agents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import make_strategy
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.evaluation.run_quality import K
from dynaq.judging.judgement import JudgementSource
from dynaq.qrels import Qrels
from dynaq.tensor_cache import TensorCache

Scores = dict[int, list[float]]  # judgements per applicant -> nDCG@10 of every applicant


def score(cache: TensorCache, qrels: Qrels, applicant: str, values: npt.NDArray[Any]) -> float:
    """nDCG@10 of ranking the catalogue by values `[n_jobs]`; ties go to the earlier job."""
    best = np.argsort(-values, kind="stable")[:K]
    return ndcg_at_k([cache.job_ids[j] for j in best], qrels.grades(applicant), K)


def learning_curve(
    cache: TensorCache,
    qrels: Qrels,
    applicants: Sequence[str],
    judge: JudgementSource,
    strategy: str,
    config: DynaQConfig,
    budgets: Collection[int],
    *,
    values: Callable[[DynaQBlock], npt.NDArray[Any]] = DynaQBlock.q_values,
    finished: Callable[[DynaQBlock], None] = lambda block: None,
    **start: Any,
) -> Scores:
    """Train the applicants' agents block by block, and score their lists whenever a budget of `budgets` is used up.

    values: `[agents, n_jobs]`, by which a block's lists are ranked; Q by default. finished: called with each trained
    block. start: what else `DynaQBlock` is given, such as `pretrained` or `gold`. Of the budgets that are no multiple
    of the slate size, only the configuration's own is scored.
    """
    scores: Scores = {}
    for first in range(0, len(applicants), config.block_size):
        members = applicants[first : first + config.block_size]
        block = DynaQBlock(cache, members, make_strategy(strategy, config), config, **start)
        for rounds, _ in enumerate(chain([None], block.rounds(judge))):
            judged = config.budget if block.done else rounds * config.slate_size
            if judged in budgets:
                for applicant, own in zip(members, values(block), strict=True):
                    scores.setdefault(judged, []).append(score(cache, qrels, applicant, own))
        finished(block)
    return scores
