"""Records of one round of a block: the metrics of each agent, and the updates of Q."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dynaq.judging.judgement import Judgement, Label


@dataclass(frozen=True)
class RoundMetrics:
    """One agent after one round.

    Args:
        applicant_id: the agent's applicant.
        round: counted from 1.
        judgements_used: distinct pairs judged so far; always 0 for the cosine strategy, which needs no judge.
        mean_reward: mean reward of this round's slate under the strategy; NaN when the judge abstained on every pair.
        cumulative_reward: sum of the rewards of all slates.
        epsilon: chance of a random job on this round's slate.
        w_cosine: weight of the cosine in the reward.
        q_loss: mean loss of the direct updates; NaN when there were none.
        model_loss: mean squared error of the model's predictions for this slate, made before it was judged.
        planning_loss: mean loss of the planning updates; NaN when there were none.
        abstained: pairs of this slate on which the judge abstained.
        judge_reward: mean of the judge's own rewards of this slate, before any blending; NaN when there are none.
        applied, saved, clicked, ignored: number of the judge's answers with each label on this slate.
        trust: how far the block believes the judge after this round, in [0, 1]; NaN if the model has no estimate.
    """

    applicant_id: str
    round: int
    judgements_used: int
    mean_reward: float
    cumulative_reward: float
    epsilon: float
    w_cosine: float
    q_loss: float
    model_loss: float
    planning_loss: float
    abstained: int
    judge_reward: float = math.nan
    applied: int = 0
    saved: int = 0
    clicked: int = 0
    ignored: int = 0
    trust: float = math.nan


@dataclass(frozen=True)
class Update:
    """One update of Q: its batch `[agents, batch]`, with weight 0 for padding, and its losses `[agents]`."""

    kind: str
    jobs: torch.Tensor
    weights: torch.Tensor
    losses: torch.Tensor


def mean_loss(updates: list[Update], kind: str) -> list[float]:
    """Mean loss per agent of the updates of that kind; empty when there were none."""
    losses = [update.losses for update in updates if update.kind == kind]
    mean: list[float] = torch.stack(losses).mean(0).tolist() if losses else []
    return mean


def count_label(judgements: Sequence[Judgement], label: Label) -> int:
    """How many of the judgements have the label."""
    return sum(judgement.label == label for judgement in judgements)
