"""What an answer says of the truth, for a judge whose confusion P(answer = l | truth = k) is known.

`dynaq.agent.judge_table` estimates the confusion, from the answers of a block or of a ledger. A judge that gives a
random label with probability e has the confusion (1-e)·I + e/4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from dynaq.agent.judge_table import LEVELS, sharpened


@dataclass(frozen=True)
class AnswerNoise:
    """A judge's errors.

    Args:
        confusion: `[4, 4]`, P(answer = l | truth = k) in row k.
        usual: `[4]`, the judge's usual mix of answers, against which an answer that is a distribution is read as the
            label it points to (`judge_table.sharpened`); None: answers are taken as they are.
        random_share: the share of random answers that would make as many errors.
    """

    confusion: torch.Tensor
    usual: torch.Tensor | None = None
    random_share: float = 0.0

    @classmethod
    def random(cls, share: float, usual: torch.Tensor | None = None) -> AnswerNoise:
        """A judge a share of whose answers is random."""
        return cls((1.0 - share) * torch.eye(LEVELS) + share / LEVELS, usual, share)

    @property
    def faultless(self) -> bool:
        """Whether every answer is the truth."""
        return torch.equal(self.confusion, torch.eye(LEVELS).to(self.confusion))

    def to(self, device: torch.device) -> AnswerNoise:
        """The same on a device."""
        usual = None if self.usual is None else self.usual.to(device)
        return replace(self, confusion=self.confusion.to(device), usual=usual)

    def read(self, answers: torch.Tensor) -> torch.Tensor:
        """Which label each answer `[..., 4]` points to, `[..., 4]`."""
        if self.usual is None:
            return answers
        said = answers.reshape(-1, LEVELS).double().cpu().numpy()
        return torch.from_numpy(sharpened(said, self.usual.double().cpu().numpy())).to(answers).view_as(answers)

    def answered(self, truth: torch.Tensor) -> torch.Tensor:
        """P(answer) `[..., 4]` when the truth has the distribution `truth` `[..., 4]`."""
        return truth @ self.confusion

    def truth(self, predicted: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """P(truth | answer) `[..., 4]` by Bayes' rule from what was predicted without the answer; both `[..., 4]`.

        For an answer that is a distribution, the mean over the labels drawn from it.
        """
        if self.faultless:
            return answers
        ratio = answers / self.answered(predicted).clamp_min(1e-12)
        return predicted * (ratio @ self.confusion.T)

    @property
    def errors(self) -> float:
        """The share of answers that are not the truth."""
        return self.random_share * (LEVELS - 1) / LEVELS

    def genuine(self, answers: torch.Tensor) -> torch.Tensor:
        """The mix of truths `[4]` that explains the mix of answers `[rows, 4]` best (expectation-maximisation)."""
        said = answers.mean(0)
        share = torch.full_like(said, 1.0 / LEVELS)
        for _ in range(1000):
            share = share * (self.confusion @ (said / self.answered(share).clamp_min(1e-12)))
        return share
