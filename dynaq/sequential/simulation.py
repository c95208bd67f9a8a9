"""Sessions of many people with an agent, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dynaq.evaluation.ranking import dcg
from dynaq.sequential.people import NO_JOB, Array, Indices, Mask, People


class ListAgent(Protocol):
    """Shows a list per person and session, and is told what came of it; see `dynaq.sequential.agents.Cosine`."""

    def propose(self, open_jobs: Mask, size: int, left: int) -> Indices:
        """Lists of `size` jobs, `[people, size]`."""
        ...

    def observe(self, lists: Indices, rewards: Array, gaps: Indices, offered: Mask, still: Mask) -> None:
        """What came of the lists."""
        ...


@dataclass(frozen=True)
class Outcome:
    """By person and session, `[people, sessions]`.

    Attributes:
        returns: sum of the rewards of the jobs that were looked at.
        distance: mean distance 1 - cosine of the list's pairs (intra-list distance, Ziegler et al. 2005).
        ndcg: of the list by the person's rewards at its start, against the best list of open jobs then; negative
            rewards count 0. NaN where no open job is worth anything.
        judgements: jobs that were looked at.
    """

    returns: Array
    distance: Array
    ndcg: Array
    judgements: Array


def simulate(
    people: People, base: Array, embedding: Array, agent: ListAgent, *, sessions: int = 20, size: int = 5
) -> Outcome:
    """Show `sessions` lists of `size` jobs to everybody.

    base: `[people, n_jobs]`, the judge's rewards. embedding: `[n_jobs, d]`, by which a list's distance is measured.
    """
    n = len(base)
    rows = np.arange(n)
    unit = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    found = [np.zeros((n, sessions)) for _ in range(4)]
    for session in range(sessions):
        offered, now = people.open, people.rewards(base)
        lists = agent.propose(offered, size, sessions - session - 1)
        rewards = np.stack([people.look(jobs, base[rows, jobs]) for jobs in lists.T], axis=1)
        unseen = people.open
        gaps = people.end_session()
        agent.observe(lists, rewards, gaps, unseen, people.open)
        seen = ~np.isnan(rewards)
        for row, value in enumerate(
            (np.nansum(rewards, axis=1), _distance(unit, lists), _ndcg(now, offered, lists), seen.sum(1))
        ):
            found[row][:, session] = value
    return Outcome(*found)


def _distance(unit: Array, lists: Indices) -> Array:
    shown = unit[lists] * (lists != NO_JOB)[..., None]
    n = (lists != NO_JOB).sum(1)
    cosines = np.einsum("aid,ajd->a", shown, shown) - n
    pairs = n * (n - 1)
    distance: Array = 1.0 - np.divide(cosines, pairs, out=np.ones(len(lists)), where=pairs > 0)
    return distance


def _ndcg(now: Array, offered: Mask, lists: Indices) -> Array:
    gains = np.where(offered, np.maximum(now, 0.0), 0.0)
    best = -np.sort(-gains, axis=1)[:, : lists.shape[1]]
    shown = np.take_along_axis(gains, np.maximum(lists, 0), 1) * (lists != NO_JOB)
    ideal = np.array([dcg(row) for row in best])
    reached = np.array([dcg(row) for row in shown])
    ndcg: Array = np.divide(reached, ideal, out=np.full(len(lists), np.nan), where=ideal > 0)
    return ndcg
