"""Reward of a pair (s, a): cosine, LLM, or a blend of the two.

    cosine  (c + 1) / 2 with c = cos(s, a) over the layout's pairs
    llm     sum over labels of p·value, with the judge's probabilities p
    hybrid  w·texts + (1 - w)·llm. By trust, w = (1 - trust)² for the block, texts is the reward that the similarities
            let expect, and llm what the world model believes of each pair, which weighs texts and judge pair by pair.
            Annealed, texts is the cosine, and w falls linearly from w_initial to w_final over anneal_steps judgements

The cosine is known for every pair and only the judge's part has to be learned, so a strategy is just a weight: the
world model predicts the judge's reward, and the prediction is blended with the exact cosine by the same w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError

Value = TypeVar("Value", float, torch.Tensor)

STRATEGIES = ("cosine", "llm", "hybrid")


@dataclass(frozen=True)
class RewardStrategy:
    """A reward, described by the weight of its cosine part.

    Args:
        name: one of STRATEGIES.
        initial, final: weight of the cosine at the first judgement and after annealing.
        anneal_steps: judgements between the two.
        switch_step: number of judgements from which on only `final` counts; None for no switch.
    """

    name: str
    initial: float
    final: float
    anneal_steps: int = 1
    switch_step: int | None = None

    @property
    def needs_judge(self) -> bool:
        """Whether rewards come from judgements at all; cosine rewards do not."""
        return self.name != "cosine"

    def cosine_weight(self, judged: torch.Tensor) -> torch.Tensor:
        """w after `judged` judgements, `[agents]` int → `[agents]` float in [0, 1]."""
        progress = (judged.float() / self.anneal_steps).clamp(max=1.0)
        weight = self.initial + (self.final - self.initial) * progress
        if self.switch_step is not None:
            weight = torch.where(judged >= self.switch_step, torch.full_like(weight, self.final), weight)
        return weight

    def blend(self, cosine: Value, judged_reward: Value, weight: Value) -> Value:
        """w·cosine + (1 - w)·llm, of numbers or of tensors that broadcast; the cosine is already scaled to [0, 1]."""
        return weight * cosine + (1.0 - weight) * judged_reward


def make_strategy(name: str, config: DynaQConfig) -> RewardStrategy:
    """The strategy called `name`. Raises InputError, listing the known names, for any other."""
    if name == "cosine":
        return RewardStrategy(name, 1.0, 1.0)
    if name == "llm":
        return RewardStrategy(name, 0.0, 0.0)
    if name == "hybrid":
        return RewardStrategy(name, config.w_initial, config.w_final, config.anneal_steps, config.switch_step)
    raise InputError(f"strategy {name!r} does not exist; use one of {', '.join(STRATEGIES)}")
