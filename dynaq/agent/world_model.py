"""The interface between a block of agents and its world model."""

from __future__ import annotations

from typing import Protocol

import torch

from dynaq.agent.judge_table import Answers, JudgeTable
from dynaq.agent.replay_buffer import JudgedPairs


class WorldModel(Protocol):
    """Predicts the judge's reward of every pair, judged or not.

    Attributes:
        mean, deviation: `[agents, n_jobs]`, in units of reward.
        believed: `[agents, longest]`, the reward of each judged pair that the model believes.
        text_rewards: `[agents, n_jobs]`, the reward expected from the similarities alone, in the judge's units; None
            for a model that does not estimate it.
        table: what the judge's answers are worth; None for a model that takes that as given.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    believed: torch.Tensor
    table: JudgeTable | None

    @property
    def text_rewards(self) -> torch.Tensor | None:
        """The reward expected from the similarities alone, or None."""
        ...

    def observe(self, judged: JudgedPairs) -> None:
        """Condition on all judged pairs of the block."""
        ...

    def anchor(self, gold: Answers | None) -> None:
        """Pairs of known truth that the judge answered; a model that takes the judge as given has no use for them."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint that do not follow from the judged pairs."""
        ...

    def load_state(self, state: dict[str, torch.Tensor], judged: JudgedPairs) -> None:
        """Restore what `state` returned, and recompute the rest from the judged pairs."""
        ...
