"""Networks of many agents as one: parameters stacked `[agents, in, out]`, one batched matrix product per layer.

Agents never mix: every operation is element-wise or batched over the first axis, and each agent's initial weights and
dropout masks come from its own generator, so an agent learns the same alone and in any block.

All parameters of a block lie in one flat buffer, gradients in another, so that Adam (Kingma & Ba 2015) is one kernel
over the block. The gradients of so plain a network are written by hand, straight into that buffer: autograd would
allocate the largest tensors anew in every update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise

import torch


def agent_generator(seed: int, applicant_id: str, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments (SHA-256 of them)."""
    digest = hashlib.sha256(f"{seed}\x00{applicant_id}\x00{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Layers:
    """Views of one flat buffer: per layer the weights `[agents, in, out]` and biases `[agents, 1, out]`.

    Args:
        agents: how many are stacked.
        state_width: inputs of the first layer that are the same for all of an agent's actions.
        sizes: width of the other inputs, widths of the hidden layers, 1.
    """

    def __init__(self, agents: int, state_width: int, sizes: Sequence[int], device: torch.device) -> None:
        shapes = [(agents, state_width, sizes[1])]
        for fan_in, fan_out in pairwise(sizes):
            shapes += [(agents, fan_in, fan_out), (agents, 1, fan_out)]
        counts = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(sum(counts), device=device)
        parts = torch.split(self.flat, counts)
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.state_weight = views[0]
        self.weights, self.biases = views[1::2], views[2::2]


class StackedMLP:
    """One multilayer perceptron with scalar output per agent, ReLU between layers, trained by Adam.

    The input of an agent is its state, `state[agent]`, beside an action. The state's product with the first layer is
    computed once per batch, not once per action.

    Args:
        state: `[agents, 1, state_width]`; the width may be 0.
        sizes: width of the actions, and the hidden widths.
        generators: one per agent, for weights and dropout.
        dropout: after each hidden layer, in training.
    """

    def __init__(
        self,
        state: torch.Tensor,
        sizes: Sequence[int],
        generators: Sequence[torch.Generator],
        learning_rate: float,
        dropout: float = 0.0,
    ) -> None:
        self._state, self._generators, self._dropout = state, list(generators), dropout
        self._shape = (len(generators), state.shape[2], [*sizes, 1], state.device)
        self.parameters, self._gradients = Layers(*self._shape), Layers(*self._shape)
        self._draw_parameters()
        self.parameters.flat.grad = self._gradients.flat
        self._optimizer = torch.optim.Adam([self.parameters.flat], lr=learning_rate, fused=True)
        self._inputs: list[torch.Tensor] = []  # of each layer, for the backward pass

    def _draw_parameters(self) -> None:
        """Uniform in ±1/√fan_in, PyTorch's default for nn.Linear."""
        _, state_width, sizes, _ = self._shape
        p = self.parameters
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            rows = fan_in + (state_width if layer == 0 else 0)
            bound = 1.0 / math.sqrt(rows)
            for agent, generator in enumerate(self._generators):
                drawn = torch.rand(rows + 1, fan_out, generator=generator) * 2 * bound - bound
                p.biases[layer][agent] = drawn[-1:]
                p.weights[layer][agent] = drawn[rows - fan_in : rows]
                if layer == 0:
                    p.state_weight[agent] = drawn[:state_width]

    def copy_of_parameters(self) -> Layers:
        """Parameters for a target network."""
        layers = Layers(*self._shape)
        layers.flat.copy_(self.parameters.flat)
        return layers

    def predict(self, actions: torch.Tensor, parameters: Layers | None = None) -> torch.Tensor:
        """actions `[agents, batch, width]` → `[agents, batch]`, without dropout; with other parameters if given."""
        p = parameters or self.parameters
        x = actions
        for i in range(len(p.weights)):
            x = torch.baddbmm(self._bias(p, i), x, p.weights[i])
            if i + 1 < len(p.weights):
                x = x.relu_()
        return x.squeeze(-1)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """The same in training: with dropout, and remembering what `descend` needs."""
        p, x, keep = self.parameters, actions, 1.0 - self._dropout
        self._inputs = [x]
        for i in range(len(p.weights)):
            x = torch.baddbmm(self._bias(p, i), x, p.weights[i])
            if i + 1 < len(p.weights):
                x = x.relu_()
                if self._dropout > 0:
                    masks = [torch.rand(x.shape[1:], generator=g) < keep for g in self._generators]
                    x = x.mul_(torch.stack(masks).to(x.device)).div_(keep)
                self._inputs.append(x)
        return x.squeeze(-1)

    def _bias(self, parameters: Layers, layer: int) -> torch.Tensor:
        bias = parameters.biases[layer]
        if layer == 0 and self._state.shape[2]:
            bias = torch.baddbmm(bias, self._state, parameters.state_weight)
        return bias

    def descend(self, slope: torch.Tensor) -> None:
        """One step of Adam down the loss whose derivative by the last `forward`'s output is slope `[agents, batch]`."""
        p, g = self.parameters, self._gradients
        keep = 1.0 - self._dropout
        slope = slope[..., None]
        last = len(p.weights) - 1
        for i in range(last, -1, -1):
            x, weight = self._inputs[i], p.weights[i].transpose(1, 2)
            torch.sum(slope, dim=1, keepdim=True, out=g.biases[i])
            if i == last:  # of one output: as matrix products, these two would take ten times as long
                torch.bmm(slope.transpose(1, 2), x, out=g.weights[i].transpose(1, 2))
                below = slope * weight if i > 0 else slope
            else:
                torch.bmm(x.transpose(1, 2), slope, out=g.weights[i])
                below = torch.bmm(slope, weight) if i > 0 else slope
            if i > 0:
                # x > 0 is where neither ReLU nor dropout closed the way.
                slope = torch.ops.aten.threshold_backward(below, x, 0)
                if self._dropout > 0:
                    slope = slope.div_(keep)
        if self._state.shape[2]:
            torch.mul(self._state.transpose(1, 2), g.biases[0], out=g.state_weight)
        self._inputs = []
        self._optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint: parameters and Adam's moments."""
        return {"parameters": self.parameters.flat, **self._optimizer.state.get(self.parameters.flat, {})}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """What `state` gave."""
        flat = self.parameters.flat
        flat.copy_(state["parameters"])
        if len(state) > 1:
            self._optimizer.state[flat] = {k: v.to(flat.device) for k, v in state.items() if k != "parameters"}
