"""The interface between a block of agents and its world model, and the model that a block gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from dynaq.agent.bayes_world_model import BayesWorldModel, CosinePrior, Prior
from dynaq.agent.candidate_pool import CandidatePool
from dynaq.agent.config import DynaQConfig
from dynaq.agent.job_pool import Change, JobPool
from dynaq.agent.judge_table import Answers, JudgeTable
from dynaq.agent.mlp_world_model import MLPWorldModel
from dynaq.agent.pair_inputs import InteractionInputs, PairInputs
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.agent.trust_world_model import TrustWorldModel
from dynaq.judging.judgement import LABELS
from dynaq.tensor_cache import TensorCache


class StartingNetworks(Protocol):
    """Networks that agents may start from, fitted on other applicants: `dynaq.pretraining.prior.Pretrained`."""

    @property
    def falls_back(self) -> bool:
        """Whether agents start from the cosine instead, because the networks gain nothing."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with the networks' weights; a checkpoint keeps it."""
        ...

    def prior(
        self,
        cache: TensorCache,
        applicants: Sequence[str],
        device: torch.device,
        features: torch.Tensor | None = None,
        candidates: CandidatePool | None = None,
    ) -> Prior:
        """The prior of these applicants. Raises InputError if the cache's layout or encoder differs."""
        ...


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

    def exchanged(self, changes: Sequence[Change], judged: JudgedPairs) -> None:
        """Some places of the agents' pools hold other jobs; `observe` comes next."""
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


def make_world_model(
    pool: JobPool,
    inputs: PairInputs,
    generators: list[torch.Generator],
    config: DynaQConfig,
    pretrained: StartingNetworks | None,
) -> WorldModel:
    """The model that `DynaQConfig.world_model` names."""
    if config.world_model == "mlp":
        return MLPWorldModel(inputs, pool.cosines, generators, config)
    device = pool.cosines.device
    values = torch.tensor([config.label_values[label] for label in LABELS], device=device)
    networks = None if pretrained is None or pretrained.falls_back else pretrained
    # Pre-trained networks bring their own estimate of the judge's noise.
    if config.world_model == "trust" and networks is None and config.judge_noise is None:
        return TrustWorldModel(pool, values)
    prior: Prior
    if networks is not None:
        features = inputs.features if isinstance(inputs, InteractionInputs) else None
        candidates = pool if isinstance(pool, CandidatePool) else None
        prior = networks.prior(pool.cache, pool.applicant_ids, device, features, candidates)
    else:
        prior = CosinePrior(pool, values)
    return BayesWorldModel(prior, pool, values, config.judge_noise)
