"""The baseline `rllib-dqn`: RLlib's own DQN on the registered environment, with the budget and judge of our agents.

The applicants of a cohort step together, one episode each: step t buys every applicant's t-th judgement, so a learning
curve by judgements means the same as for Dyna-Q. One network learns from all of them; separate networks, with fifty
transitions each, reach half as much (`bench/rllib_dqn.md`).

Two choices favour the baseline. The network scores every job of the slate with the same weights, from its similarities
and how they stand out from the slate, instead of learning anew for each position what a similarity means. And the slate
is wide, so that the greedy action has a real choice. The network takes a slate of any length; to rank, it is given the
whole catalogue as one slate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector.utils import batch_space
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.schedules.scheduler import Scheduler
from torch import nn

from dynaq.agent.pair_features import STANDARDISED_SCALE, pair_features
from dynaq.agent.stacked_mlp import agent_generator
from dynaq.env import ID
from dynaq.judging.judgement import Judgement, JudgementSource, Slate
from dynaq.tensor_cache import TensorCache

ENV_NAME = "dynaq/Cohort-v0"
MAX_QUESTIONS = 64  # in flight at once; the broker would only queue more
FloatArray = npt.NDArray[np.float32]


class RllibDqnConfig(BaseModel):
    """Settings of the baseline, tuned on applicants whom no evaluation uses; `bench/rllib_dqn.md` has figures and
    reasons."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slate_size: int = Field(default=100, ge=1, description="random jobs to choose from in each step")
    hidden: tuple[PositiveInt, ...] = Field(default=(64, 32), description="widths of the network's hidden layers")
    lr: float = Field(default=1e-3, gt=0, description="Adam's step size")
    gamma: float = Field(default=0.0, ge=0, lt=1, description="discount")
    double_q: bool = True
    n_step: int = Field(default=1, ge=1, description="steps of a return")
    batch_size: int = Field(default=64, ge=1, description="transitions in one update")
    updates: int = Field(default=8, ge=1, description="updates after each step of the whole cohort")
    target_steps: int = Field(default=5, ge=1, description="steps of the cohort between copies to the target network")
    epsilon_start: float = Field(default=0.3, ge=0, le=1, description="chance of a random job at the first step")
    epsilon_end: float = Field(default=0.02, ge=0, le=1)
    epsilon_share: float = Field(default=0.2, gt=0, le=1, description="share of the budget over which ε falls linearly")


class CohortEnv(gymnasium.vector.VectorEnv[FloatArray, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """One environment per applicant, stepped together, so that the judge gets their questions concurrently."""

    metadata: dict[str, Any] = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self, cache: TensorCache, applicants: Sequence[str], source: JudgementSource, budget: int, slate_size: int
    ) -> None:
        self._sources = [_RecordingSource(source) for _ in applicants]
        self._envs = [
            gymnasium.make(
                ID,
                cache=cache,
                applicants=[applicant],
                source=remembering,
                budget=budget,
                slate_size=slate_size,
                disable_env_checker=True,
            )
            for applicant, remembering in zip(applicants, self._sources, strict=True)
        ]
        self._applicants = list(applicants)
        self._pool = ThreadPoolExecutor(min(len(applicants), MAX_QUESTIONS), "rllib-dqn")
        self.num_envs = len(applicants)
        self.single_observation_space = self._envs[0].observation_space
        self.single_action_space = self._envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def answers(self, applicant: str, since: int = 0) -> list[Judgement]:
        """The judgements of an applicant's steps from `since` on, abstentions left out."""
        steps = self._sources[self._applicants.index(applicant)].steps[since:]
        return [judgement for judgement in steps if not judgement.abstained]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin every applicant's episode. Slates depend on seed and applicant, not on the rest of the cohort."""
        seeds = [agent_generator(seed or 0, name, "slates").initial_seed() % 2**31 for name in self._applicants]
        observed = [env.reset(seed=own)[0] for env, own in zip(self._envs, seeds, strict=True)]
        return np.stack(observed), {}

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[FloatArray, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """Ask about one job per applicant. Raises JudgeError when the judge fails."""
        neutral = mean_reward([judgement for source in self._sources for judgement in source.steps])
        for source in self._sources:
            source.neutral = neutral
        found = list(self._pool.map(lambda pair: pair[0].step(int(pair[1])), zip(self._envs, actions, strict=True)))
        observations, rewards, terminated, truncated, _ = zip(*found, strict=True)
        return np.stack(observations), np.array(rewards), np.array(terminated), np.array(truncated), {}

    def close_extras(self, **values: Any) -> None:
        """Stop the threads; the base class's `close` calls this."""
        self._pool.shutdown()


class _RecordingSource:
    """A source that records the judgements it passes on.

    neutral: the learner's reward for an abstention. Every step must have a reward, and the mean of the rewards so far
    speaks neither for nor against the job.
    """

    def __init__(self, source: JudgementSource) -> None:
        self._source = source
        self.steps: list[Judgement] = []
        self.neutral = 0.0

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        found = self._source.fetch(slates)
        self.steps += [judgement for slate in found for judgement in slate]
        return [[replace(j, reward=self.neutral) if j.abstained else j for j in slate] for slate in found]


def mean_reward(judgements: Sequence[Judgement]) -> float:
    """Mean of the known rewards; 0 when there are none."""
    rewards = [judgement.reward for judgement in judgements if judgement.reward is not None]
    return float(np.mean(rewards)) if rewards else 0.0


class SlateFeatures(nn.Module):
    """Observation `[batch, 1 + slate·width]` → per job its similarities, how they stand out from the slate, and the
    share of the budget left, `[batch, slate, 2·width + 1]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """These features of `batch[Columns.OBS]`, under the key that RLlib expects of an encoder."""
        observation = batch[Columns.OBS]
        cosines = observation[:, 1:].reshape(len(observation), -1, self.width)
        spread = cosines.std(1, keepdim=True, unbiased=False).clamp_min(1e-3)
        standing_out = STANDARDISED_SCALE * (cosines - cosines.mean(1, keepdim=True)) / spread
        left = observation[:, :1, None].expand(-1, cosines.shape[1], 1)
        return {ENCODER_OUT: torch.cat([cosines, standing_out, left], dim=2)}


class SlateQModule(DefaultDQNTorchRLModule):
    """RLlib's DQN module with a network that scores every job of the slate with the same weights."""

    def setup(self) -> None:
        """Build the networks from `model_config`; RLlib calls it once."""
        given: Any = self.model_config
        width, hidden = int(given["width"]), tuple(given["hidden"])
        self.uses_dueling, self.num_atoms, self.uses_double_q = False, 1, bool(given["double_q"])
        self.epsilon_schedule = Scheduler(fixed_value_or_schedule=given["epsilon"], framework=self.framework)
        self.encoder = SlateFeatures(width)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([2 * width + 1, *hidden]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.af = nn.Sequential(*layers, nn.Linear(hidden[-1], 1), nn.Flatten(1))


def build(env: CohortEnv, config: RllibDqnConfig, budget: int, seed: int, width: int) -> Algorithm:
    """RLlib's DQN over this environment, within this process; each `train()` is one step of the whole cohort."""
    gymnasium.registry.pop(ENV_NAME, None)  # left by an earlier cohort of this process
    made: Any = lambda num_envs: env  # noqa: E731
    gymnasium.register(ENV_NAME, vector_entry_point=made)
    steps = env.num_envs  # RLlib counts each environment's step
    settings = (
        DQNConfig()  # type: ignore[no-untyped-call]
        .environment(ENV_NAME)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=steps,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length=1,
        )
        .learners(num_learners=0)
        .training(
            lr=config.lr,
            gamma=config.gamma,
            double_q=config.double_q,
            dueling=False,
            n_step=config.n_step,
            train_batch_size=config.batch_size,
            training_intensity=config.updates * config.batch_size / steps,
            num_steps_sampled_before_learning_starts=0,
            target_network_update_freq=config.target_steps * steps,
            epsilon=[
                [0, config.epsilon_start],
                [max(1, int(config.epsilon_share * budget * steps)), config.epsilon_end],
            ],
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": budget * steps},
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=SlateQModule, model_config={"hidden": config.hidden, "width": width}
            )
        )
        .reporting(
            min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=1, min_train_timesteps_per_iteration=0
        )
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm = settings.build_algo()
    # RLlib seeds everything but the sampling from the replay buffer.
    buffer: Any = algorithm.local_replay_buffer
    buffer.rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    return algorithm


class RllibDqn:
    """DQN over a cohort, with the metrics that every learner here reports.

    Args:
        source: of the judgements; asked about one job per applicant and step.
        budget: judgements per applicant, capped at the size of the catalogue.
        seed: of network, exploration and slates.
    """

    def __init__(
        self,
        cache: TensorCache,
        applicants: Sequence[str],
        source: JudgementSource,
        config: RllibDqnConfig,
        budget: int,
        seed: int,
    ) -> None:
        torch.set_num_threads(1)
        self.cache, self.applicants, self.config = cache, list(applicants), config
        self.budget, self.spent = min(budget, len(cache.job_ids)), 0
        slate_size = min(config.slate_size, len(cache.job_ids) - self.budget + 1)
        self.env = CohortEnv(cache, applicants, source, self.budget, slate_size)
        width = len(cache.layout.state) * len(cache.layout.action)
        # The first third of a pair's features are the cosines that the environment shows.
        self._cosines = pair_features(cache, applicants)[..., :width].flatten(1)
        self._algorithm = build(self.env, config, self.budget, seed, width)
        self.loss = math.nan

    def step(self) -> None:
        """Buy every applicant's next judgement and learn from them. Raises JudgeError when the judge fails."""
        result: dict[str, Any] = self._algorithm.train()  # type: ignore[no-untyped-call]
        self.spent += 1
        self.loss = float(result.get("learners", {}).get(DEFAULT_MODULE_ID, {}).get("qf_loss", math.nan))

    def learn_until(self, spent: int) -> list[float]:
        """Steps until each applicant has had `spent` judgements, at most the budget; the loss of each step.

        Raises JudgeError when the judge fails.
        """
        losses = []
        while self.spent < min(spent, self.budget):
            self.step()
            losses.append(self.loss)
        return losses

    def answers(self, applicant: str, since: int = 0) -> list[Judgement]:
        """The judgements of an applicant's steps from `since` on, abstentions left out."""
        return self.env.answers(applicant, since)

    @property
    def epsilon(self) -> float:
        """Chance of a random job in the next step."""
        share = min(1.0, self.spent / max(1.0, self.config.epsilon_share * self.budget))
        return self.config.epsilon_start + share * (self.config.epsilon_end - self.config.epsilon_start)

    def q_values(self) -> FloatArray:
        """Q of every job of the catalogue as one slate, `[applicants, n_jobs]`."""
        module: Any = self._algorithm.get_module()
        left = torch.full((len(self.applicants), 1), max(0.0, 1.0 - self.spent / self.budget))
        with torch.no_grad():
            found = module.compute_q_values({Columns.OBS: torch.cat([left, self._cosines], dim=1)})
        q: FloatArray = found[QF_PREDS].numpy()
        return q

    def close(self) -> None:
        """Stop the algorithm and its workers."""
        self._algorithm.stop()  # type: ignore[no-untyped-call]
