"""RLlib's DQN and PPO on `dynaq/JobMarket-v1`, with the people and the market of `bench.sequence`.

    python -m bench.sequence_rllib [--algorithms dqn,ppo] [--seeds 3] [--episodes 10] [--tune] [--out FOLDER]

Each algorithm trains on ten episodes of 20 sessions with every person, ten times the interactions of the agents of
`bench.sequence`, who live through one. Then one more episode is played greedily with the people and closing days of
the table's seeds. Two more things favour it: it sees each answer before it chooses the next job of the list, and it is
given the history as sums, what of each job's family and likeness was shown and how much that was liked, most recent
first. A slate of 100 random open jobs stands for the catalogue. One network for all people, the same weights for every
job of the slate, as in `cluster.rllib`.

`--tune` tries the learning rates and discounts of GRID on as many other people with another seed, and prints the return
of each: TUNED are the best of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import nn

from bench.sequence import LIST_SIZE, PEOPLE, Market, load, shown
from cluster.rllib.dqn import SlateFeatures, SlateQModule
from cluster.session import ray_session
from dynaq.evaluation.intervals import interval
from dynaq.evaluation.simulated import VALUES, LabelJudge
from dynaq.sequential import SEQUENTIAL_ID

SEQUENTIAL_ENV_NAME = "dynaq/SequentialCohort-v0"
HISTORY_EVENTS, SLATE_SIZE, BUDGET = 10, 100, 100
HIDDEN = (64, 32)
Setting = tuple[float, float]  # learning rate, gamma
GRID: tuple[Setting, ...] = tuple(itertools.product((3e-4, 1e-3, 3e-3), (0.0, 0.9, 0.95)))
TUNED: dict[str, Setting] = {"dqn": (1e-3, 0.95), "ppo": (1e-3, 0.95)}
TUNING_SEED = 10


class HistoryFeatures(nn.Module):
    """Observation of v1 → per job of the slate what `SlateFeatures` gives, its family's count, and the sums over the
    last events of recency·similarity and recency·similarity·reward, `[batch, slate, 2·width + 4]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slate = SlateFeatures(width)
        self.width = width

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen = batch[Columns.OBS]
        tail = 2 * HISTORY_EVENTS + SLATE_SIZE * (1 + HISTORY_EVENTS)
        own = self.slate({Columns.OBS: seen[:, :-tail]})[ENCODER_OUT]
        events = seen[:, -tail : -tail + 2 * HISTORY_EVENTS].reshape(-1, HISTORY_EVENTS, 2)
        jobs = seen[:, -tail + 2 * HISTORY_EVENTS :].reshape(-1, SLATE_SIZE, 1 + HISTORY_EVENTS)
        recent = torch.einsum("bse,be->bs", jobs[..., 1:], events[..., 1])
        liked = torch.einsum("bse,be->bs", jobs[..., 1:], events[..., 1] * events[..., 0].clamp_min(0.0))
        return {ENCODER_OUT: torch.cat([own, jobs[..., :1], recent[..., None], liked[..., None]], dim=2)}


def scorer(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([2 * width + 4, *HIDDEN]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1), nn.Flatten(1))


class HistoryQModule(SlateQModule):
    def setup(self) -> None:
        super().setup()
        given: Any = self.model_config
        self.encoder, self.af = HistoryFeatures(given["width"]), scorer(given["width"])


class HistoryPolicyModule(TorchRLModule, ValueFunctionAPI):
    def setup(self) -> None:
        given: Any = self.model_config
        self.encoder = HistoryFeatures(given["width"])
        self.policy, self.value = scorer(given["width"]), scorer(given["width"])

    def _forward(self, batch: dict[str, Any], **values: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(self.encoder(batch)[ENCODER_OUT])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        found: torch.Tensor = self.value(self.encoder(batch)[ENCODER_OUT]).mean(1)
        return found


def environment(
    market: Market, applicant: str, sessions: int, world_seed: int | None = None
) -> gymnasium.Env[Any, Any]:
    labels = np.abs(market.base[..., None] - VALUES).argmin(-1)
    return gymnasium.make(
        SEQUENTIAL_ID,
        cache=market.cache,
        applicants=[applicant],
        source=LabelJudge(market.cache, market.applicants, labels),
        budget=BUDGET,
        slate_size=SLATE_SIZE,
        person=PEOPLE,
        list_size=LIST_SIZE,
        history=HISTORY_EVENTS,
        families=market.families,
        world_seed=world_seed,
        sessions=sessions,
        disable_env_checker=True,
    )


def build(name: str, market: Market, sessions: int, episodes: int, seed: int, setting: Setting) -> Algorithm:
    """The algorithm over one environment per person; each `train()` is five steps of all of them, or 50 for PPO."""
    makers = [partial(environment, market, applicant, sessions) for applicant in market.applicants]
    envs = gymnasium.vector.SyncVectorEnv(makers)
    gymnasium.registry.pop(SEQUENTIAL_ENV_NAME, None)
    made: Any = lambda num_envs: envs  # noqa: E731
    gymnasium.register(SEQUENTIAL_ENV_NAME, vector_entry_point=made)
    width = len(market.cache.layout.state) * len(market.cache.layout.action)
    people = len(makers)
    lr, gamma = setting
    config: Any
    if name == "dqn":
        model = {"hidden": HIDDEN, "width": width, "double_q": True, "epsilon": [[0, 0.3], [200 * people, 0.02]]}
        config = DQNConfig().training(  # type: ignore[no-untyped-call]
            lr=lr,
            gamma=gamma,
            double_q=True,
            dueling=False,
            train_batch_size=64,
            training_intensity=2 * 64 / people,
            num_steps_sampled_before_learning_starts=0,
            target_network_update_freq=20 * people,
            epsilon=model["epsilon"],
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": BUDGET * people * episodes},
        )
        module: Any = HistoryQModule
    else:
        model = {"width": width}
        steps = BUDGET * people // 2
        config = PPOConfig().training(  # type: ignore[no-untyped-call]
            lr=lr,
            gamma=gamma,
            train_batch_size=steps,
            minibatch_size=min(256, steps),
            num_epochs=10,
            entropy_coeff=0.003,
        )
        module = HistoryPolicyModule
    config = (
        config.environment(SEQUENTIAL_ENV_NAME)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=people,
            gym_env_vectorize_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length=5 if name == "dqn" else "auto",
        )
        .learners(num_learners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=model))
        .reporting(
            min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=1, min_train_timesteps_per_iteration=0
        )
        .debugging(seed=seed, log_level="ERROR")
    )
    torch.manual_seed(seed)
    found: Algorithm = config.build_algo()
    return found


def played(algorithm: Algorithm, market: Market, sessions: int, seed: int) -> list[float]:
    """Return of one greedy episode with each person."""
    module: Any = algorithm.get_module()
    found = []
    for applicant in market.applicants:
        env = environment(market, applicant, sessions, world_seed=seed)
        observation, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            batch = {Columns.OBS: torch.from_numpy(observation[None])}
            with torch.no_grad():
                scores = (
                    module.af(module.encoder(batch)[ENCODER_OUT])
                    if hasattr(module, "af")
                    else module._forward(batch)[Columns.ACTION_DIST_INPUTS]
                )
            observation, reward, over, _, _ = env.step(np.int64(scores.argmax()))
            total += float(reward)
        found.append(total)
    return found


def trained(
    name: str, market: Market, sessions: int, episodes: int, seed: int, setting: Setting
) -> tuple[list[float], int]:
    """Return of each person's greedy episode after training, and the number of interactions."""
    algorithm = build(name, market, sessions, episodes, seed, setting)
    sampled, goal = 0, BUDGET * len(market.applicants) * episodes
    while sampled < goal:
        sampled = algorithm.train()["num_env_steps_sampled_lifetime"]  # type: ignore[no-untyped-call]
    found = played(algorithm, market, sessions, seed)
    algorithm.stop()  # type: ignore[no-untyped-call]
    return found, sampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("data/esco-sequence"), help="where the market is kept")
    parser.add_argument("--algorithms", default="dqn,ppo")
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--tune", action="store_true", help="try the settings of GRID on other people")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-sequence"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    people = slice(args.applicants, 2 * args.applicants) if args.tune else slice(args.applicants)
    seeds = [TUNING_SEED] if args.tune else list(range(args.seeds))
    market = load(args.store, 0, people)
    found: list[dict[str, Any]] = []
    with ray_session(num_cpus=2, object_store_gib=0.25):
        logging.getLogger("ray").setLevel(logging.ERROR)
        for name in args.algorithms.split(","):
            for setting in GRID if args.tune else (TUNED[name],):
                began = time.process_time()
                runs = [trained(name, market, args.sessions, args.episodes, seed, setting) for seed in seeds]
                mean = interval(np.array([returns for returns, _ in runs]).T)
                record = {
                    "algorithm": name,
                    "setting": setting,
                    "return": [mean.mean, mean.low, mean.high],
                    "interactions": int(sum(steps for _, steps in runs)),
                    "seconds": time.process_time() - began,
                }
                found.append(record)
                print(
                    f"{name}, lr {setting[0]:g}, γ {setting[1]:g}: return {shown(record['return'], '')}, "
                    f"{record['interactions']} interactions, {record['seconds']:.0f} s",
                    flush=True,
                )
                out = args.out / ("rllib-tuning.json" if args.tune else "rllib.json")
                out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
