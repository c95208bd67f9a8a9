from __future__ import annotations

from typing import Any

import pytest
import torch

from dynaq.agent.pair_inputs import InteractionInputs, RawInputs
from dynaq.agent.q_function import QFunction, bellman_target
from dynaq.agent.stacked_mlp import agent_generator
from tests.support.toy_market import small_config

JOBS = 8


def q_function(**values: Any) -> QFunction:
    features = torch.randn(2, JOBS, 5, generator=torch.Generator().manual_seed(0))
    generators = [agent_generator(0, f"ann{i}", "q") for i in range(2)]
    return QFunction(InteractionInputs(features), generators, small_config(**values))


def batch(job: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    jobs = torch.full((2, 1), job)
    return jobs, torch.full((2, 1), 0.5), torch.ones(2, 1)


def test_the_target_is_the_reward_and_the_discounted_next_value() -> None:
    target = bellman_target(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]]), 0.9)
    torch.testing.assert_close(target, torch.tensor([[2.8, 1.8]]))


@pytest.mark.parametrize(("target_action", "is_maximum"), [("max", True), ("same", False)])
def test_the_bellman_target_takes_the_maximum_over_candidate_actions(target_action: str, is_maximum: bool) -> None:
    """Not the value of the action just taken. Seen from the loss of one update, and from a hand-made table."""
    q = q_function(target_action=target_action, dueling=False)
    q.table[:, 3] = 5.0
    q.sync(tau=1.0)
    best, own = q.target_values().max(1).values, q.target_values()[:, 0]
    predicted = q.values()[:, 0]
    loss = q.update(*batch(job=0))
    by_maximum = (predicted - (0.5 + 0.9 * best)) ** 2
    by_same = (predicted - (0.5 + 0.9 * own)) ** 2
    torch.testing.assert_close(loss, by_maximum if is_maximum else by_same)
    assert not torch.allclose(by_maximum, by_same)


def test_the_maximum_holds_until_the_next_sync() -> None:
    q = q_function(dueling=False)
    before = q.next_max.clone()
    for _ in range(20):
        q.update(*batch())
    assert torch.equal(q.next_max, before)
    q.sync()
    torch.testing.assert_close(q.next_max, q.values().max(1, keepdim=True).values)


def test_q_reaches_the_fixed_point_of_known_rewards() -> None:
    """Q*(a) = r(a) + γ·max r / (1 - γ), in exact tabular learning and with the network."""
    rewards = torch.linspace(0, 1, JOBS).expand(2, -1)
    jobs = torch.arange(JOBS).expand(2, -1)
    for values in ({}, {"dueling": False, "gamma": 0.5}):
        q = q_function(**values)
        gamma = values.get("gamma", 0.9)
        for step in range(1200):
            q.update(jobs, rewards, torch.ones(2, JOBS))
            if step % 8 == 7:
                q.sync()
        torch.testing.assert_close(q.values(), rewards + gamma / (1 - gamma), atol=2e-2, rtol=0)


def test_the_fixed_point_of_known_rewards_can_be_started_from() -> None:
    q = q_function()
    rewards = torch.rand(2, JOBS)
    q.start_from(rewards)
    best = rewards.max(1, keepdim=True).values
    torch.testing.assert_close(q.next_max, best / 0.1)
    torch.testing.assert_close(q.value, 0.9 * best / 0.1)


def test_padding_neither_teaches_nor_counts() -> None:
    padded, bare = q_function(), q_function()
    jobs, rewards, weights = torch.tensor([[1, 4, 0]] * 2), torch.rand(2, 3), torch.tensor([[1.0, 1.0, 0.0]] * 2)
    for _ in range(5):
        loss = padded.update(jobs, rewards, weights)
        torch.testing.assert_close(loss, bare.update(jobs[:, :2], rewards[:, :2], weights[:, :2]))
    torch.testing.assert_close(padded.values(), bare.values(), atol=1e-6, rtol=1e-6)
    assert torch.equal(padded.table[:, 0], torch.zeros(2))


def test_a_job_that_is_in_the_batch_many_times_converges_all_the_same() -> None:
    """The sum of eight tabular steps of 0.5 would triple the error with every update."""
    q = q_function()
    for _ in range(30):
        q.update(torch.zeros(2, 8, dtype=torch.int64), torch.full((2, 8), 0.5), torch.ones(2, 8))
    target = 0.5 + 0.9 * q.next_max[:, 0]
    torch.testing.assert_close(q.values()[:, 0], target, atol=1e-2, rtol=0)


def test_huber_is_linear_far_from_the_target() -> None:
    q = q_function(loss="huber")
    q.table[:, 0] = 10.0
    error = q.values()[:, 0] - (0.5 + 0.9 * q.next_max[:, 0])
    torch.testing.assert_close(q.update(*batch()), error.abs() - 0.5)
    near = q_function(loss="huber")
    near.table[:, 0] = (0.5 + 0.9 * near.next_max - near.values())[:, 0] + 0.4
    torch.testing.assert_close(near.update(*batch()), torch.full((2,), 0.5 * 0.4**2), atol=1e-5, rtol=1e-4)


def test_a_huber_step_has_the_slope_of_its_loss() -> None:
    """The tabular part off, plain gradient known by autograd: compare the first Adam moment."""
    features = torch.randn(2, JOBS, 5, generator=torch.Generator().manual_seed(0))
    for loss in ("huber", "mse"):
        q = q_function(loss=loss, tabular=False, q_hidden=(), dueling=False)
        jobs, rewards = torch.tensor([[1, 2]] * 2), torch.tensor([[0.2, 30.0]] * 2)
        weight = q.network.parameters.weights[0].clone().requires_grad_()
        predicted = (features[:, 1:3] @ weight).squeeze(-1) + q.network.parameters.biases[0][:, 0]
        criterion = torch.nn.functional.huber_loss if loss == "huber" else torch.nn.functional.mse_loss
        criterion(predicted, rewards + 0.9 * q.next_max, reduction="none").mean(1).sum().backward()
        q.update(jobs, rewards, torch.ones(2, 2))
        torch.testing.assert_close(q.network.gradients.weights[0], weight.grad)


def test_double_q_picks_by_q_and_values_by_the_target() -> None:
    q = q_function(double_q=True, tau=0.5, dueling=False)
    q.sync(tau=1.0)
    q.table[:, 2] = 9.0  # Q likes job 2 best; the target follows by half
    q.target_table[:, 5] = 40.0  # and the target would have preferred job 5
    q.sync()
    torch.testing.assert_close(q.next_max[:, 0], q.target_values()[:, 2])
    assert (q.target_values().argmax(1) == 5).all()


def test_tau_moves_the_target_by_its_share() -> None:
    q = q_function(tau=0.25)
    before = q.target_parameters.flat.clone()
    q.update(*batch())
    q.sync()
    expected = before + 0.25 * (q.network.parameters.flat - before)
    torch.testing.assert_close(q.target_parameters.flat, expected)


def test_raw_inputs_are_state_and_action_side_by_side() -> None:
    states, actions = torch.randn(2, 3), torch.randn(JOBS, 4)
    inputs = RawInputs(states, actions)
    q = QFunction(inputs, [torch.Generator().manual_seed(i) for i in range(2)], small_config(tabular=False))
    p = q.network.parameters
    hidden = p.biases[0].shape[2]
    drawn = torch.stack([torch.rand(8, hidden, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    weight = (2 * drawn - 1) / 7**0.5  # seven inputs, then the bias
    pairs = torch.cat([states[:, None].expand(-1, JOBS, -1), actions.expand(2, -1, -1)], dim=-1)
    x = torch.relu(pairs @ weight[:, :-1] + weight[:, -1:])
    x = torch.relu(x @ p.weights[1] + p.biases[1])
    expected = (x @ p.weights[2] + p.biases[2]).squeeze(-1) + q.value
    torch.testing.assert_close(q.values(), expected)


def test_q_over_a_catalogue_in_pieces_is_q_over_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    q = q_function()
    whole = q.values()
    monkeypatch.setattr("dynaq.agent.pair_inputs.CATALOGUE_BYTES", 4 * 2 * 5 * 3)  # three jobs at a time
    torch.testing.assert_close(q.values(), whole)
