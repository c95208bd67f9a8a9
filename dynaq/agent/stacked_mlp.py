"""The networks of many agents as one: stacked parameters `[agents, in, out]`, one batched matrix product per layer.

Agents never mix: every operation is element-wise or batched over the first axis, and each agent's initial weights and
dropout masks come from its own generator, so an agent learns the same alone and in any block.

All parameters of a block lie in one flat buffer and all gradients in another, so that Adam (Kingma & Ba 2015) is one
kernel over the block. The gradients of so plain a network are written by hand, directly into that buffer: autograd
would reallocate the largest tensors in every update. Gradients are needed for one update only, so all networks of a
process share one buffer for them.

An agent's state s does not change, so its product with the first layer's weights W is a constant vector, and the bias b
stores b + s·W. The gradient of W[i, j] is s[i] times that of b[j], so Adam, which divides by the gradient's size, would
move b[j] by some δ and W[i, j] by sign(s[i])·δ: together b + s·W moves by δ·(1 + Σ|s[i]|). The code applies that step
directly and needs neither W nor its gradient and moments, which saves more than a third of the memory of an agent that
reads raw vectors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise

import torch


def agent_generator(seed: int, applicant_id: str, purpose: str) -> torch.Generator:
    """A CPU generator whose seed depends only on the arguments (their SHA-256)."""
    digest = hashlib.sha256(f"{seed}\x00{applicant_id}\x00{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Layers:
    """Views of one flat buffer: per layer the weights `[agents, in, out]` and biases `[agents, 1, out]`.

    Args:
        agents: number of stacked agents.
        sizes: width of the actions, widths of the hidden layers, 1.
        flat: the buffer, at least as long as needed; None allocates zeros.
    """

    def __init__(
        self, agents: int, sizes: Sequence[int], device: torch.device, flat: torch.Tensor | None = None
    ) -> None:
        shapes = []
        for fan_in, fan_out in pairwise(sizes):
            shapes += [(agents, fan_in, fan_out), (agents, 1, fan_out)]
        counts = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(sum(counts), device=device) if flat is None else flat[: sum(counts)]
        parts = torch.split(self.flat, counts)
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.weights, self.biases = views[::2], views[1::2]


_gradients: dict[torch.device, torch.Tensor] = {}  # one buffer per device, sized for the largest block so far


def _gradient_buffer(size: int, device: torch.device) -> torch.Tensor:
    """At least `size` numbers, valid until the next network of this process takes a step."""
    buffer = _gradients.get(device)
    if buffer is None or len(buffer) < size:
        buffer = _gradients[device] = torch.zeros(size, device=device)
    return buffer


class StackedMLP:
    """One multilayer perceptron with scalar output per agent, ReLU between layers, trained by Adam.

    An agent's input is its state `state[agent]` followed by an action; the first bias holds the state's part.

    Args:
        state: `[agents, 1, state_width]`; the width may be 0.
        sizes: width of the actions, and the hidden widths.
        generators: one per agent, for initial weights and dropout.
        dropout: probability after each hidden layer, in training only.
    """

    def __init__(
        self,
        state: torch.Tensor,
        sizes: Sequence[int],
        generators: Sequence[torch.Generator],
        learning_rate: float,
        dropout: float = 0.0,
    ) -> None:
        self._generators, self._dropout = list(generators), dropout
        self._shape = (len(generators), [*sizes, 1], state.device)
        self.parameters = Layers(*self._shape)
        self._draw_parameters(state)
        # Factor by which Adam moves b + s·W further than b alone, `[agents, 1, 1]`; None without a state.
        self._reach = 1.0 + state.abs().sum(2, keepdim=True) if state.shape[2] else None
        self._optimizer = torch.optim.Adam([self.parameters.flat], lr=learning_rate, fused=True)
        self._inputs: list[torch.Tensor] = []  # inputs of each layer, for the backward pass

    def _draw_parameters(self, state: torch.Tensor) -> None:
        """Uniform in ±1/√fan_in, PyTorch's default for nn.Linear."""
        _, sizes, device = self._shape
        p = self.parameters
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            rows = fan_in + (state.shape[2] if layer == 0 else 0)
            bound = 1.0 / math.sqrt(rows)
            for agent, generator in enumerate(self._generators):
                drawn = torch.rand(rows + 1, fan_out, generator=generator) * 2 * bound - bound
                p.biases[layer][agent] = drawn[-1:]
                p.weights[layer][agent] = drawn[rows - fan_in : rows]
                if layer == 0:
                    p.biases[0][agent] += state[agent] @ drawn[: rows - fan_in].to(device)

    def copy_of_parameters(self) -> Layers:
        """A copy of the parameters, for a target network."""
        layers = Layers(*self._shape)
        layers.flat.copy_(self.parameters.flat)
        return layers

    def predict(self, actions: torch.Tensor, parameters: Layers | None = None) -> torch.Tensor:
        """actions `[agents, batch, width]` → `[agents, batch]`, without dropout; given `parameters` replace its own."""
        p = parameters or self.parameters
        x = actions
        for i in range(len(p.weights)):
            x = torch.baddbmm(p.biases[i], x, p.weights[i])
            if i + 1 < len(p.weights):
                x = x.relu_()
        return x.squeeze(-1)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """`predict` in training mode: applies dropout, and keeps what `descend` needs."""
        p, x, keep = self.parameters, actions, 1.0 - self._dropout
        self._inputs = [x]
        for i in range(len(p.weights)):
            x = torch.baddbmm(p.biases[i], x, p.weights[i])
            if i + 1 < len(p.weights):
                x = x.relu_()
                if self._dropout > 0:
                    masks = [torch.rand(x.shape[1:], generator=g) < keep for g in self._generators]
                    x = x.mul_(torch.stack(masks).to(x.device)).div_(keep)
                self._inputs.append(x)
        return x.squeeze(-1)

    @property
    def gradients(self) -> Layers:
        """The gradients of the last step that any network of this process took."""
        return Layers(*self._shape, flat=_gradient_buffer(len(self.parameters.flat), self.parameters.flat.device))

    def descend(self, slope: torch.Tensor) -> None:
        """One step of Adam down the loss whose derivative by the last `forward`'s output is slope `[agents, batch]`."""
        p, g, keep = self.parameters, self.gradients, 1.0 - self._dropout
        slope = slope[..., None]
        last = len(p.weights) - 1
        for i in range(last, -1, -1):
            x, weight = self._inputs[i], p.weights[i].transpose(1, 2)
            torch.sum(slope, dim=1, keepdim=True, out=g.biases[i])
            if i == last:  # a single output: the general matrix products would take ten times as long
                torch.bmm(slope.transpose(1, 2), x, out=g.weights[i].transpose(1, 2))
                below = slope * weight if i > 0 else slope
            else:
                torch.bmm(x.transpose(1, 2), slope, out=g.weights[i])
                below = torch.bmm(slope, weight) if i > 0 else slope
            if i > 0:
                # x > 0 exactly where neither ReLU nor dropout blocked the gradient.
                slope = torch.ops.aten.threshold_backward(below, x, 0)
                if self._dropout > 0:
                    slope = slope.div_(keep)
        self._inputs = []
        before = None if self._reach is None else p.biases[0].clone()
        p.flat.grad = g.flat
        self._optimizer.step()
        p.flat.grad = None
        if before is not None and self._reach is not None:
            p.biases[0].copy_(before + self._reach * (p.biases[0] - before))

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint: parameters and Adam's moments."""
        return {"parameters": self.parameters.flat, **self._optimizer.state.get(self.parameters.flat, {})}

    @staticmethod
    def without_agent(flat: torch.Tensor, agent: int, agents: int, hidden: Sequence[int]) -> torch.Tensor:
        """A flat buffer of `agents` networks (parameters, or Adam's moments) without those of one.

        hidden: widths of the hidden layers; that of the actions follows from the buffer's length.
        """
        after = [*hidden, 1]
        first = len(flat) // agents - sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(after))
        layers = Layers(agents, [first // after[0] - 1, *after], flat.device, flat)
        pairs = zip(layers.weights, layers.biases, strict=True)
        return torch.cat([without_row(part, agent).flatten() for pair in pairs for part in pair])

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        flat = self.parameters.flat
        flat.copy_(state["parameters"])
        if len(state) > 1:
            self._optimizer.state[flat] = {k: v.to(flat.device) for k, v in state.items() if k != "parameters"}


def without_row(tensor: torch.Tensor, row: int) -> torch.Tensor:
    """The tensor without one entry of its first axis."""
    return torch.cat([tensor[:row], tensor[row + 1 :]])
