"""Shared by the markets: seeded, repeatable subsets of an occupation's items for postings and applicants."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job


@dataclass(frozen=True)
class Market:
    """Postings, applicants, graded relevance between them, and the attribution that the data's licence requires."""

    jobs: list[Job]
    applicants: list[Candidate]
    qrels: Qrels
    attribution: str


def generator(*key: str | int) -> np.random.Generator:
    """A random generator for one record, so that a record does not depend on how many came before it."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def subset(items: Sequence[str], size: int, rng: np.random.Generator) -> list[str]:
    """`size` random items (all, if there are fewer) in their original order."""
    chosen = rng.choice(len(items), min(size, len(items)), replace=False)
    return [items[i] for i in sorted(chosen)]


def differing(items: Sequence[str], size: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Two subsets, each of at most `size` and two thirds of the items, that differ unless there is only one item."""
    size = min(size, max(1, round(2 * len(items) / 3)), len(items))
    first = second = subset(items, size, rng)
    while second == first and len(items) > 1:
        second = subset(items, size, rng)
    return first, second


def disjoint(items: Sequence[str], size: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Two disjoint subsets, each of at most `size` and half of the items."""
    order = rng.permutation(len(items))
    size = min(size, len(items) // 2)
    return [items[i] for i in sorted(order[:size])], [items[i] for i in sorted(order[size : 2 * size])]
