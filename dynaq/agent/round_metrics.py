"""What one round of a block leaves behind: a record per agent, and the updates of Q that it made."""

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
        applicant_id: whose agent.
        round: counted from 1.
        judgements_used: distinct pairs judged so far; 0 throughout for the cosine strategy, which asks nobody.
        mean_reward: mean reward of this round's slate under the strategy; NaN when every pair was abstained.
        cumulative_reward: sum of the rewards of all slates.
        epsilon: chance of a random job that this round acted with.
        w_cosine: weight of the cosine in the reward.
        q_loss: mean loss of the direct updates; NaN without any.
        model_loss: squared error of the model's predictions for this slate, made before it was judged.
        planning_loss: mean loss of the planning updates; NaN without any.
        abstained: pairs of this slate on which the judge abstained.
        judge_reward: mean of the judge's own rewards of this slate, whatever the strategy makes of them; NaN without.
        applied, saved, clicked, ignored: the judge's answers on this slate.
        trust: how far the block believes the judge after this round, in [0, 1]; NaN where it takes that as given.
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
    """Per agent; empty without updates of that kind."""
    losses = [update.losses for update in updates if update.kind == kind]
    mean: list[float] = torch.stack(losses).mean(0).tolist() if losses else []
    return mean


def mean_known(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def count_label(judgements: Sequence[Judgement], label: Label) -> int:
    """How many of the judgements have the label."""
    return sum(judgement.label == label for judgement in judgements)
