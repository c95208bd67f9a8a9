"""Networks of many agents as one: parameters stacked `[agents, in, out]`, one batched matrix product per layer.

Agents never mix: every operation is element-wise or batched over the first axis, and each agent's initial weights and
dropout masks come from its own generator, so an agent learns the same alone and in any block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import nn


def agent_generator(seed: int, applicant_id: str, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments (SHA-256 of them)."""
    digest = hashlib.sha256(f"{seed}\x00{applicant_id}\x00{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class StackedMLP(nn.Module):
    """One multilayer perceptron with scalar output per agent, ReLU between layers.

    Args:
        sizes: input width and hidden widths.
        generators: one per agent, for weights and dropout.
        dropout: after each hidden layer, in training mode.
    """

    def __init__(self, sizes: Sequence[int], generators: Sequence[torch.Generator], dropout: float = 0.0) -> None:
        super().__init__()
        self._generators = list(generators)
        self._dropout = dropout
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in zip(sizes, [*sizes[1:], 1], strict=True):
            bound = 1.0 / math.sqrt(fan_in)  # PyTorch's default for nn.Linear
            drawn = [torch.rand(fan_in + 1, fan_out, generator=g) * 2 * bound - bound for g in self._generators]
            stacked = torch.stack(drawn)
            self.weights.append(nn.Parameter(stacked[:, :-1].contiguous()))
            self.biases.append(nn.Parameter(stacked[:, -1:].contiguous()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x `[agents, batch, in]` → `[agents, batch]`."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = torch.relu(x)
                if self.training and self._dropout > 0:
                    x = x * self._mask(x.shape[1:]).to(x)
        return x.squeeze(-1)

    def _mask(self, shape: torch.Size) -> torch.Tensor:
        keep = 1.0 - self._dropout
        return torch.stack([(torch.rand(shape, generator=g) < keep).float() / keep for g in self._generators])
