from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from dynaq.agent.stacked_mlp import StackedMLP, agent_generator

SIZES = [7, 6, 5]


def generators(n: int = 3) -> list[torch.Generator]:
    return [agent_generator(0, f"ann{i}", "test") for i in range(n)]


def applicant_states(width: int) -> torch.Tensor:
    return torch.randn(3, 1, width, generator=torch.Generator().manual_seed(1))


def network(state_width: int = 4, dropout: float = 0.0, learning_rate: float = 0.01) -> StackedMLP:
    return StackedMLP(applicant_states(state_width), SIZES, generators(), learning_rate, dropout)


def plain(agent: int, state_width: int) -> torch.nn.Sequential:
    """The same network as PyTorch writes it, with weights for the state: drawn as the stacked one draws them."""
    generator = generators()[agent]
    modules: list[torch.nn.Module] = []
    for layer, (fan_in, fan_out) in enumerate(pairwise([*SIZES, 1])):
        rows = fan_in + (state_width if layer == 0 else 0)
        drawn = (torch.rand(rows + 1, fan_out, generator=generator) * 2 - 1) / rows**0.5
        linear = torch.nn.Linear(rows, fan_out)
        linear.weight.data, linear.bias.data = drawn[:-1].T.clone(), drawn[-1].clone()
        modules += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("state_width", [0, 4])
def test_it_trains_as_plain_pytorch_does(state_width: int) -> None:
    """Output, gradients and Adam's steps, against autograd and torch.optim on one agent at a time."""
    stacked, states = network(state_width), applicant_states(state_width)
    nets = [plain(agent, state_width) for agent in range(3)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.01) for net in nets]
    rng = torch.Generator().manual_seed(2)
    for _ in range(20):
        x, goal = torch.randn(3, 9, 7, generator=rng), torch.randn(3, 9, generator=rng)
        output = stacked.forward(x)
        for agent, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            own = torch.cat([states[agent].expand(9, -1), x[agent]], dim=1)
            expected = net(own).squeeze(-1)
            torch.testing.assert_close(output[agent], expected.detach(), atol=1e-5, rtol=1e-5)
            optimizer.zero_grad()
            (expected - goal[agent]).square().mean().backward()
            optimizer.step()
        stacked.descend(2 * (output - goal) / 9)
    for agent, net in enumerate(nets):
        last = net[-1]
        assert isinstance(last, torch.nn.Linear)
        torch.testing.assert_close(stacked.parameters.weights[-1][agent].T, last.weight.data, atol=1e-5, rtol=1e-4)


def test_gradients_pass_through_the_dropout_that_was_drawn() -> None:
    """A weight's slope by finite differences, with the same masks."""
    stacked = network(dropout=0.4, learning_rate=0.0)
    x = torch.randn(3, 9, 7, generator=torch.Generator().manual_seed(3))
    states = [g.get_state() for g in stacked._generators]

    def total() -> torch.Tensor:
        for generator, state in zip(stacked._generators, states, strict=True):
            generator.set_state(state)
        return stacked.forward(x).double().sum()

    before = total()
    stacked.descend(torch.ones(3, 9))
    for layer in range(3):
        weight, gradient = stacked.parameters.weights[layer], stacked.gradients.weights[layer]
        position = gradient.abs().flatten().argmax()
        weight.view(-1)[position] += 1e-3
        slope = float((total() - before) / 1e-3)
        weight.view(-1)[position] -= 1e-3
        assert slope == pytest.approx(float(gradient.flatten()[position]), rel=0.02)


def test_dropout_scales_what_it_keeps_and_leaves_predictions_alone() -> None:
    """With one hidden layer the output is linear in what dropout touches, so its mean over masks is the prediction."""
    stacked = StackedMLP(torch.zeros(3, 1, 0), [7, 6], generators(), 0.01, dropout=0.5)
    x = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(4))
    draws = torch.stack([stacked.forward(x) for _ in range(4000)])
    assert draws.std(0).median() > 0.01  # the median, because an input that activates no hidden unit does not vary
    torch.testing.assert_close(draws.mean(0), stacked.predict(x), atol=0.03, rtol=0)
    assert torch.equal(stacked.predict(x), stacked.predict(x))


def test_agents_do_not_mix() -> None:
    """A step of one agent leaves the others' parameters where they were."""
    stacked = network()
    before = [p.clone() for p in stacked.parameters.weights]
    stacked.forward(torch.randn(3, 9, 7))
    slope = torch.zeros(3, 9)
    slope[1] = 1.0
    stacked.descend(slope)
    for weight, old in zip(stacked.parameters.weights, before, strict=True):
        assert torch.equal(weight[[0, 2]], old[[0, 2]])
        assert not torch.equal(weight[1], old[1])


def test_initial_weights_depend_on_seed_and_applicant_alone() -> None:
    alone = StackedMLP(torch.zeros(1, 1, 4), SIZES, [agent_generator(0, "ann1", "test")], 0.01)
    assert torch.equal(alone.parameters.weights[1][0], network().parameters.weights[1][1])
    for seed, applicant_id, purpose in ((1, "ann1", "test"), (0, "ann2", "test"), (0, "ann1", "other")):
        other = StackedMLP(torch.zeros(1, 1, 4), SIZES, [agent_generator(seed, applicant_id, purpose)], 0.01)
        assert not torch.equal(other.parameters.weights[1], alone.parameters.weights[1])


def test_initial_weights_have_pytorchs_spread() -> None:
    stacked = StackedMLP(torch.zeros(1, 1, 60), [40, 50], generators(1), 0.01)
    bound = 1 / 10  # the state's 60 inputs and the action's 40
    assert bound * 0.95 < float(stacked.parameters.weights[0].abs().max()) <= bound


def test_state_restores_parameters_and_moments() -> None:
    first, second = network(), network()
    x = torch.randn(3, 9, 7)
    for _ in range(3):
        first.descend(first.forward(x))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for net in (first, second):
        net.descend(net.forward(x))
    assert torch.equal(first.parameters.flat, second.parameters.flat)
    assert set(first.state()) == {"parameters", "step", "exp_avg", "exp_avg_sq"}


def test_networks_share_one_buffer_of_gradients_and_learn_as_if_alone() -> None:
    x, goal = torch.randn(3, 9, 7), torch.randn(3, 9)
    alone, first, second = network(), network(), network(state_width=0)
    for _ in range(3):
        alone.descend(alone.forward(x) - goal)
    for _ in range(3):
        output, other = first.forward(x), second.forward(x)
        second.descend(other - goal)
        first.descend(output - goal)
    assert torch.equal(first.parameters.flat, alone.parameters.flat)
    assert first.gradients.flat.data_ptr() == second.gradients.flat.data_ptr()
