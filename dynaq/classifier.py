"""A small classifier of judgements, p(label | x), that knows the judge's noise.

    p(answer) = (1 - e)·softmax(net(x)) + e/4

With the share of random answers e in the likelihood the network learns what the judge would say if it never erred
(Patrini et al. 2017, forward correction).
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from dynaq.judge import LABELS

STEPS = 2000
BATCH = 512
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.3
CHECK_EVERY = 50
PATIENCE = 400
HELD_OUT = 0.2


class Classifier(nn.Module):
    """x `[..., width]` → p(label) `[..., 4]`; standardises its input itself."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, len(LABELS))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net((x - self.mean) / self.scale)
        return torch.softmax(logits, dim=-1)


def fit_classifier(
    x: torch.Tensor, answers: torch.Tensor, groups: torch.Tensor, noise: float, hidden: int, seed: int
) -> Classifier:
    """Maximum likelihood with early stopping on held-out groups (applicants), so that it generalises to new ones.

    x `[rows, width]`, answers `[rows, 4]` distributions, groups `[rows]` int.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups.numpy()))
    held = torch.from_numpy(np.isin(groups.numpy(), names[: max(1, int(len(names) * HELD_OUT))]))
    model = Classifier(x.shape[1], hidden)
    model.mean.copy_(x.mean(0))
    model.scale.copy_(x.std(0).clamp_min(1e-6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    train = torch.nonzero(~held).squeeze(1)
    best, best_state, best_step = float("inf"), copy.deepcopy(model.state_dict()), 0
    for step in range(STEPS):
        if step % CHECK_EVERY == 0:
            with torch.no_grad():
                loss = float(_negative_log_likelihood(model(x[held]), answers[held], noise))
            if loss < best:
                best, best_state, best_step = loss, copy.deepcopy(model.state_dict()), step
            elif step - best_step > PATIENCE:
                break
        rows = train[torch.from_numpy(rng.integers(0, len(train), BATCH))]
        objective = _negative_log_likelihood(model(x[rows]), answers[rows], noise)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(objective)
        optimizer.step()
    model.load_state_dict(best_state)
    return model.eval().requires_grad_(False)


def _negative_log_likelihood(predicted: torch.Tensor, answers: torch.Tensor, noise: float) -> torch.Tensor:
    mixed = (1.0 - noise) * predicted + noise / len(LABELS)
    return -(answers * torch.log(mixed + 1e-9)).sum(-1).mean()
