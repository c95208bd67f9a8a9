"""Every hyperparameter of an agent, in one typed record.

The defaults did best on the O*NET benchmark (`make bench-quality`); `preset: reference` has the textbook values (Sutton
1990; Peng et al. 2018, arXiv 1801.06176).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from dynaq.judging.judgement import LABEL_VALUES, Label
from dynaq.settings import load_settings

# Fields in config.yaml and checkpoints of older runs that no longer have any effect. The replay needs no capacity: it
# holds every judged pair, and the budget bounds their number.
RETIRED = frozenset({"replay_capacity"})


def without_retired(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A configuration written by an older version, without the fields that this version ignores."""
    return {name: value for name, value in values.items() if name not in RETIRED}


class DynaQConfig(BaseModel):
    """Configuration of a block of Dyna-Q agents. Loaded from YAML or flags, printed into the run folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(default=0, ge=0, description="with the applicant's id, the source of every random choice")
    budget: int = Field(default=50, ge=1, description="distinct pairs that may be judged per applicant")
    slate_size: int = Field(default=5, ge=1, description="jobs proposed to one applicant in one round")
    candidates: int = Field(
        default=4096,
        ge=64,
        description="jobs of the catalogue that an agent considers at a time; the whole catalogue where it has no more",
    )
    block_size: int = Field(default=16, ge=1, description="agents that train stacked")

    # Q-network
    representation: Literal["interaction", "raw"] = Field(
        default="interaction", description="input of the networks: block similarities, or state and action concatenated"
    )
    q_hidden: tuple[PositiveInt, ...] = Field(default=(64, 32), description="widths of the Q-network's hidden layers")
    tabular: bool = Field(default=True, description="add one learned value per job to Q, as in tabular Dyna-Q")
    tabular_rate: float = Field(default=0.5, gt=0, le=1, description="step size of the tabular part")
    dueling: bool = Field(default=True, description="split Q into a value of the state and an advantage")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in hidden layers")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size")
    loss: Literal["mse", "huber"] = Field(default="mse", description="of Q against its target")
    gamma: float = Field(default=0.9, ge=0, lt=1, description="discount")
    double_q: bool = Field(default=False, description="pick the maximising action by Q, value it by the target network")
    target_action: Literal["max", "same"] = Field(
        default="max",
        description="bootstrap on the best action; `same`, the action just taken, is a known mistake to compare with",
    )
    target_sync: int = Field(default=1, ge=1, description="rounds between two copies into the target network")
    tau: float = Field(default=1.0, gt=0, le=1, description="share of Q that goes into the target at a sync")
    batch_size: int = Field(default=64, ge=1, description="judged pairs in one direct update")
    direct_updates: int = Field(default=5, ge=0, description="direct Q updates per round")
    warm_start: bool = Field(default=True, description="fit Q on the model's prior before the first judgement")
    warm_start_updates: int = Field(default=100, ge=0, description="updates of the warm start")

    # World model and planning
    world_model: Literal["trust", "bayes", "mlp"] = Field(
        default="trust",
        description="predicts rewards: a Gaussian process that estimates how far its judge can be believed (trust), "
        "one that believes every answer (bayes), or a network (mlp)",
    )
    model_hidden: tuple[PositiveInt, ...] = Field(default=(1024, 512), description="widths of the mlp world model")
    model_updates: int = Field(default=5, ge=0, description="updates of the mlp world model per round")
    judge_noise: float | None = Field(
        default=None, ge=0, lt=1, description="share of random answers; None: errors as pre-training estimated, or none"
    )
    planning: Literal["catalogue", "replay"] = Field(
        default="catalogue", description="plan over any job of the catalogue, or over judged pairs only (to compare)"
    )
    planning_updates: int = Field(default=5, ge=0, description="planning updates per round")
    planning_batch: int = Field(default=2048, ge=1, description="jobs in one planning update")

    # Acting
    epsilon_start: float = Field(default=0.0, ge=0, le=1, description="chance of a random job on the slate")
    epsilon_end: float = Field(default=0.0, ge=0, le=1, description="the least that this chance decays to")
    epsilon_decay: float = Field(default=0.995, gt=0, le=1, description="factor per judged pair")
    probes: int = Field(default=2, ge=0, description="random jobs on the first slate, to hear the judge on misfits")
    checked_acts: int = Field(
        default=0, ge=0, description="answers of a block's people that the judge is asked about as well, to see it err"
    )
    ucb: float = Field(default=0.0, ge=0, description="standard deviations of the model added to Q when acting")

    # Rewards
    label_values: dict[Label, float] = Field(
        default_factory=lambda: dict(LABEL_VALUES), description="reward of each answer"
    )
    weighting: Literal["trust", "annealed"] = Field(
        default="trust", description="hybrid: texts and judge weighed by trust in the judge, or by the schedule below"
    )
    w_initial: float = Field(default=0.5, ge=0, le=1, description="hybrid: weight of the cosine at the first judgement")
    w_final: float = Field(default=0.0, ge=0, le=1, description="hybrid: weight of the cosine once annealed")
    anneal_steps: int = Field(default=25, ge=1, description="hybrid: judgements over which the weight is annealed")
    switch_step: int | None = Field(default=None, ge=0, description="hybrid: from here on only the final weight counts")

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, values: Any) -> Any:
        return without_retired(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _consistent(self) -> DynaQConfig:
        if self.epsilon_end > self.epsilon_start:
            raise ValueError("epsilon_end must not be above epsilon_start")
        if set(self.label_values) != set(LABEL_VALUES):
            raise ValueError(f"label_values needs a value for each of {', '.join(LABEL_VALUES)}")
        return self

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> DynaQConfig:
        """Defaults, then a preset, then the YAML file, then the overrides that are not None.

        Raises InputError naming each wrong field.
        """
        return load_settings(cls, "configuration", path, overrides, PRESETS)


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "reference": {
        "representation": "raw",
        "q_hidden": (1024, 512, 256),
        "tabular": False,
        "dueling": False,
        "dropout": 0.2,
        "world_model": "mlp",
        "model_hidden": (1024, 512),
        "planning_batch": 64,
        "weighting": "annealed",
        "epsilon_start": 1.0,
        "epsilon_end": 0.01,
        "epsilon_decay": 0.995,
    },
}
