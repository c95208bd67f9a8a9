"""Speed of stacked training: a block of agents beside a plain PyTorch loop over the same agents, in one run.

    python -m bench.agents                    16 agents, every size, all cores
    python -m bench.agents --threads 1        as one actor trains
    python -m bench.agents --device cuda

The two ways take turns, and the best turn of each counts; `median` is of the ratios of the turns. The plain loop trains
one agent after the other as one would write it: nn.Sequential, autograd, torch.optim.Adam with its defaults; a second
one has Adam(fused=True). Both compute what ours does: the same batches, the same target, the same losses.

The bound is what the machine allows, from peaks that are measured first:

    arithmetic  every product of a batch with a weight matrix is 2·batch·weights operations: one forward, one for the
                weights' gradient, one for the inputs' gradient (not in the first layer). The state's rows of the first
                layer do not count: its product is the same for the whole batch.
    memory      Adam reads parameters, gradients and two moments, and writes all but the gradients: 7·4 bytes per
                parameter. The forward and the backward pass read the parameters and write the gradients, which
                hides behind the arithmetic. Blocks that fit into the cache have no such bound.

One follows the other, so their times add up.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from dynaq.agent.config import DynaQConfig
from dynaq.agent.pair_inputs import InteractionInputs, PairInputs, RawInputs
from dynaq.agent.q_function import QFunction
from dynaq.agent.stacked_mlp import agent_generator

JOBS, STATE, ACTION, FEATURES = 856, 1152, 1920, 45  # the O*NET benchmark in the extended layout
CACHE_BYTES = 16 << 20  # parameters, gradients and moments of a block below this stay in the cache


@dataclass(frozen=True)
class Size:
    """What is trained: a preset, and how many jobs are in a batch."""

    name: str
    preset: str
    batch: int


SIZES = (
    Size("reference widths, replay batch", "reference", 64),
    Size("default widths, replay batch", "default", 50),
    Size("default widths, planning on all jobs", "default", JOBS),
)


def seconds(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peaks(device: torch.device, turns: int) -> tuple[float, float]:
    """Bytes per second of a copy that no cache holds (read and write count), operations per second of a product."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    matrix = torch.randn(2048, 2048, device=device)
    copy = min(seconds(lambda: target.copy_(source), 1, device) for _ in range(turns + 2))
    product = min(seconds(lambda: matrix @ matrix, 1, device) for _ in range(turns + 2))
    return 2 * source.nbytes / copy, 2 * 2048**3 / product


def inputs_of(config: DynaQConfig, agents: int, device: torch.device) -> PairInputs:
    draw = torch.Generator().manual_seed(0)
    if config.representation == "raw":
        states, actions = torch.randn(agents, STATE, generator=draw), torch.randn(JOBS, ACTION, generator=draw)
        return RawInputs(states.to(device), actions.to(device))
    return InteractionInputs(torch.randn(agents, JOBS, FEATURES, generator=draw).to(device))


class PlainAgents:
    """The same agents, one network and one optimizer each."""

    def __init__(self, inputs: PairInputs, config: DynaQConfig, fused: bool) -> None:
        self._inputs, self._gamma = inputs, config.gamma
        agents, _, state_width = inputs.state.shape
        widths = [state_width + inputs.width, *config.q_hidden]
        self._networks, self._optimizers = [], []
        for _ in range(agents):
            modules: list[nn.Module] = []
            for fan_in, fan_out in pairwise(widths):
                modules += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(config.dropout)]
            network = nn.Sequential(*modules, nn.Linear(widths[-1], 1)).to(inputs.state.device)
            self._networks.append(network)
            self._optimizers.append(
                torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True if fused else None)
            )

    def update(self, jobs: torch.Tensor, rewards: torch.Tensor, next_max: torch.Tensor) -> None:
        for i, (network, optimizer) in enumerate(zip(self._networks, self._optimizers, strict=True)):
            actions = self._inputs.take(jobs[i : i + 1].expand(len(jobs), -1))[i]
            x = torch.cat([self._inputs.state[i].expand(len(actions), -1), actions], dim=1)
            target = rewards[i] + self._gamma * next_max[i]
            loss = nn.functional.mse_loss(network(x).squeeze(-1), target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()


def bound(config: DynaQConfig, inputs: PairInputs, batch: int, bandwidth: float, operations: float) -> float:
    """Seconds that one update of the block cannot go below; see above."""
    agents, _, state_width = inputs.state.shape
    widths = [inputs.width, *config.q_hidden, 1]
    layers = [fan_in * fan_out for fan_in, fan_out in pairwise(widths)]
    arithmetic = agents * 2 * batch * (3 * sum(layers) - layers[0])
    parameters = agents * (sum(layers) + sum(widths[1:]) + state_width * widths[1])
    memory = 7 * 4 * parameters if 4 * 4 * parameters > CACHE_BYTES else 0
    return arithmetic / operations + memory / bandwidth


def compare(size: Size, agents: int, turns: int, device: torch.device, bandwidth: float, operations: float) -> None:
    """One line of the table."""
    config = DynaQConfig.load(None, {"preset": size.preset})
    inputs = inputs_of(config, agents, device)
    generators = [agent_generator(0, str(i), "bench") for i in range(agents)]
    ours = QFunction(inputs, generators, config)
    plain, fused = PlainAgents(inputs, config, fused=False), PlainAgents(inputs, config, fused=True)
    jobs = inputs.everything
    if size.batch < JOBS:
        jobs = torch.stack([torch.randperm(JOBS)[: size.batch] for _ in range(agents)]).to(device)
    rewards = torch.rand(jobs.shape, device=device)
    weights = torch.ones_like(rewards)
    repeats = 1 if size.preset == "reference" else 20
    ways: list[Callable[[], Any]] = [
        lambda: ours.update(jobs, rewards, weights),
        partial(plain.update, jobs, rewards, ours.next_max),
        partial(fused.update, jobs, rewards, ours.next_max),
    ]
    for way in ways:
        way()
    measured = [[seconds(way, repeats, device) / repeats for way in ways] for _ in range(turns)]
    best = [min(turn[i] for turn in measured) for i in range(3)]
    medians = [statistics.median(turn[i] / turn[0] for turn in measured) for i in (1, 2)]
    share = bound(config, inputs, size.batch, bandwidth, operations) / best[0]
    print(
        f"{size.name:<38} {1 / best[0]:>9.1f} {1 / best[1]:>9.1f} {1 / best[2]:>9.1f} {best[1] / best[0]:>8.1f}x"
        f" {medians[0]:>6.1f}x {best[2] / best[0]:>8.1f}x {medians[1]:>6.1f}x {share:>7.0%}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=16, help="in the block")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None, help="of torch; default: all cores")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    bandwidth, operations = peaks(device, options.turns)
    print(
        f"{options.agents} agents, {device}, {torch.get_num_threads()} threads: "
        f"copy {bandwidth / 1e9:.1f} GB/s, product {operations / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':<38} {'updates per second and agent':^29} {'over plain':>9} {'median':>7} {'fused':>9} {'median':>7}")
    print(f"{'':<38} {'stacked':>9} {'plain':>9} {'fused':>9} {'':>42} bound")
    for size in SIZES:
        compare(size, options.agents, options.turns, device, bandwidth, operations)


if __name__ == "__main__":
    main()
