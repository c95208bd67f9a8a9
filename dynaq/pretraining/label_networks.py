"""Small classifiers of judgements, p(label | x) or p(label | s, a), that account for the judge's errors.

    p(answer = l) = Σ_k softmax(net(x))_k · confusion[k, l]

With the confusion in the likelihood, the network learns the truth that the answers are about (forward correction,
Patrini et al. 2017).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from dynaq.agent.answer_noise import AnswerNoise
from dynaq.judging.judgement import LABELS

TRAINING_STEPS = 2000
BATCH_SIZE = 512
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.3
CHECK_EVERY, CHECK_ROWS = 50, 4096
PATIENCE_STEPS = 400  # without improvement on held-out applicants
HELD_OUT = 0.2
METRIC_SCALE = 8.0  # brings products of projected unit vectors to the magnitude of standardised features
SCALING_DECAY = 1e-4  # L2 penalty towards the identity
RARE = 1e-9  # added to probabilities before a logarithm
RAREST = 1e-3  # lowest initial share of a label


class Scaling(nn.Module):
    """p ∝ exp(slope·log p + offset), a slope and an offset per label: vector scaling (Guo et al. 2017, sec. 4.2)."""

    slope: torch.Tensor
    offset: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slope", torch.ones(len(LABELS)))
        self.register_buffer("offset", torch.zeros(len(LABELS)))

    def forward(self, p: torch.Tensor) -> torch.Tensor:
        """Distributions `[..., 4]`, scaled and normalised."""
        return _scaled(torch.log(p + RARE), self.slope, self.offset)

    @classmethod
    def fitted(cls, predicted: torch.Tensor, answers: torch.Tensor, noise: AnswerNoise) -> Scaling:
        """The scaling of predictions `[rows, 4]` that best explains answers `[rows, 4]` of a judge that errs.

        The predictions should be for rows on which their network was not fitted.
        """
        log_p = torch.log(predicted + RARE)
        beyond = torch.zeros(2, len(LABELS), requires_grad=True)  # slope - 1, offset
        optimizer = torch.optim.LBFGS([beyond], max_iter=100, line_search_fn="strong_wolfe")

        def objective() -> torch.Tensor:
            optimizer.zero_grad()
            scaled = _scaled(log_p, 1.0 + beyond[0], beyond[1])
            loss = _negative_log_likelihood(scaled, answers, noise) + SCALING_DECAY * beyond.square().sum()
            torch.autograd.backward(loss)
            return loss

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        scaling = cls()
        scaling.slope, scaling.offset = 1.0 + beyond[0].detach(), beyond[1].detach()
        return scaling


def _scaled(log_p: torch.Tensor, slope: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    return torch.softmax(slope * log_p + offset, dim=-1)


class Classifier(nn.Module):
    """x `[..., width]` → p(label) `[..., 4]`. Standardises the first columns of x, those given to `standardise`.

    corrects: the first four columns of x are log-probabilities, to which the network learns a correction. A fit that
    stops early then stays near them, not near uniform answers.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, width: int, hidden: int, corrects: bool = False) -> None:
        super().__init__()
        self.corrects = corrects
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.scaling = Scaling()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, len(LABELS))
        )
        if corrects:
            nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def standardise(self, x: torch.Tensor) -> None:
        """Set mean and scale of the first columns from data `[rows, columns]`."""
        columns = x.shape[1]
        self.mean[:columns] = x.mean(0)
        self.scale[:columns] = x.std(0).clamp_min(1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x `[..., features]` → p(label) `[..., 4]`."""
        logits: torch.Tensor = self.net((x - self.mean) / self.scale)
        p: torch.Tensor = self.scaling(
            torch.softmax(logits + x[..., : len(LABELS)] if self.corrects else logits, dim=-1)
        )
        return p

    def expect(self, answers: torch.Tensor, noise: AnswerNoise) -> None:
        """Initialise the output bias to each label's share of the truths (Lin et al. 2017, sec. 4.1).

        answers `[rows, 4]`, of a judge that errs.
        """
        share = noise.genuine(answers).clamp_min(RAREST)
        with torch.no_grad():
            self.net[-1].bias.copy_(torch.log(share / share.sum()))  # type: ignore[operator]


class PairClassifier(nn.Module):
    """p(label | s, a) from the pair's similarities and from the texts under a learned metric.

    A map `[dim, rank]` projects the weighted mean of the blocks of state and action. The element-wise product of the
    two projections is an input beside the similarities, so that the network learns which directions of the encoder
    matter for the fit of applicant and job (a low-rank bilinear form, as in Rendle 2010). Blocks are in principal
    coordinates (`principal_directions`); the map is initialised to select the first `rank` of them.
    """

    def __init__(self, width: int, hidden: int, state_blocks: int, action_blocks: int, dim: int, rank: int) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.eye(dim, rank))
        self.state_weights = nn.Parameter(torch.full((state_blocks,), 1.0 / state_blocks))
        self.action_weights = nn.Parameter(torch.full((action_blocks,), 1.0 / action_blocks))
        self.classifier = Classifier(width + rank, hidden)

    def forward(self, features: torch.Tensor, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """p(label) `[rows, 4]`.

        features `[rows, width]`; states and actions `[rows or 1, rank]` as from `project_states` and `project_actions`.
        """
        p: torch.Tensor = self.classifier(torch.cat([features, states * actions], dim=-1))
        return p

    def project_states(self, blocks: torch.Tensor) -> torch.Tensor:
        """`[rows, state_blocks, dim]` → `[rows, rank]`."""
        return METRIC_SCALE * torch.matmul(self.state_weights @ blocks, self.projection)

    def project_actions(self, blocks: torch.Tensor) -> torch.Tensor:
        """`[rows, action_blocks, dim]` → `[rows, rank]`."""
        return METRIC_SCALE * torch.matmul(self.action_weights @ blocks, self.projection)


def principal_directions(vectors: torch.Tensor, rank: int) -> torch.Tensor:
    """Principal directions of rows `[n, dim]`: orthonormal columns `[dim, rank]` by decreasing variance."""
    centred = vectors - vectors.mean(0)
    directions: torch.Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :rank]
    largest = directions.abs().argmax(0, keepdim=True)  # fixes the sign, which is arbitrary for an eigenvector
    # Contiguous, as when loaded from a file, so that products are equal to the last bit.
    return (directions * directions.gather(0, largest).sign()).contiguous()


def fit_classifier(
    model: nn.Module,
    predict: Callable[[torch.Tensor], torch.Tensor],
    answers: torch.Tensor,
    groups: torch.Tensor,
    noise: AnswerNoise,
    seed: int,
) -> None:
    """Fit by maximum likelihood, with early stopping on held-out applicants, so that it generalises to new ones.

    predict: rows `[batch]` int64 → the model's p(label) `[batch, 4]`.
    answers: `[rows, 4]` distributions.
    groups: `[rows]` int, the applicant of each row.
    """
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups.numpy()))
    held = torch.from_numpy(np.isin(groups.numpy(), names[: max(1, int(len(names) * HELD_OUT))]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    train, check = torch.nonzero(~held).squeeze(1), torch.nonzero(held).squeeze(1)
    best, best_state, best_step = float("inf"), copy.deepcopy(model.state_dict()), 0
    for step in range(TRAINING_STEPS):
        if step % CHECK_EVERY == 0:
            with torch.no_grad():
                predicted = torch.cat([predict(rows) for rows in torch.split(check, CHECK_ROWS)])
                loss = float(_negative_log_likelihood(predicted, answers[check], noise))
            if loss < best:
                best, best_state, best_step = loss, copy.deepcopy(model.state_dict()), step
            elif step - best_step > PATIENCE_STEPS:
                break
        rows = train[torch.from_numpy(rng.integers(0, len(train), BATCH_SIZE))]
        objective = _negative_log_likelihood(predict(rows), answers[rows], noise)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(objective)
        optimizer.step()
    model.load_state_dict(best_state)
    model.eval().requires_grad_(False)


def _negative_log_likelihood(predicted: torch.Tensor, answers: torch.Tensor, noise: AnswerNoise) -> torch.Tensor:
    return -(answers * torch.log(noise.answered(predicted) + 1e-9)).sum(-1).mean()
