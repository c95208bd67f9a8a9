"""What an agent does in a round before it learns: randomise part of its slate, then ask the judge about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from dynaq.judging.judgement import (
    Judgement,
    JudgementSource,
    Label,
    Slate,
    check_answers,
    expected_reward,
)


def explore(slate: Sequence[int], free: torch.Tensor, epsilon: float, generator: torch.Generator) -> list[int]:
    """The slate, with each job replaced by a random one of `free` `[n]` with probability epsilon."""
    order = iter(free[torch.randperm(len(free), generator=generator)].tolist())
    swap = (torch.rand(len(slate), generator=generator) < epsilon).tolist()
    kept = [job for job, swapped in zip(slate, swap, strict=True) if not swapped]
    while len(kept) < len(slate):
        job = next(order)
        if job not in kept:
            kept.append(job)
    return kept


def probe(slate: Sequence[int], free: torch.Tensor, probes: int, generator: torch.Generator) -> list[int]:
    """The slate, with its last `probes` jobs replaced by random ones of `free` `[n]`."""
    kept = list(slate[: len(slate) - probes])
    order = free[torch.randperm(len(free), generator=generator)].tolist()
    return kept + [job for job in order if job not in kept][:probes]


def ask(source: JudgementSource, slates: Sequence[Slate], values: Mapping[Label, float]) -> list[list[Judgement]]:
    """The judge's answers, one list per slate, with their rewards computed from `values`.

    Raises JudgeError when the judge fails or answers about other jobs.
    """
    answers = source.fetch(slates)
    for slate, answer in zip(slates, answers, strict=True):
        check_answers(answer, slate.applicant_id, slate.job_ids)
    return [list(valued(answer, values)) for answer in answers]


def valued(judgements: Iterable[Judgement], values: Mapping[Label, float]) -> Iterable[Judgement]:
    """The same answers, their rewards recomputed from `values`: recorded answers may have used other values."""
    for judgement in judgements:
        known = not judgement.abstained
        yield replace(judgement, reward=expected_reward(judgement.probabilities, values)) if known else judgement
