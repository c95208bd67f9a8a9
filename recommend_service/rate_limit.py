"""Limits how much one caller may send: to one process, or to all replicas together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from cachetools import LRUCache

from dynaq.errors import DynaqError
from dynaq.stores import ReplicaGroup
from recommend_service.config import RecommendConfig

CALLERS = 10_000  # remembered; beyond that, the least recent caller is forgotten and starts again with a full bucket

What = Literal["events", "profiles"]


class TokenBuckets:
    """A token bucket per caller: refilled at `rate` per second, up to `burst`.

    clock: time in seconds, replaced by tests.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(CALLERS)  # caller -> tokens, when

    def wait(self, caller: str, tokens: float = 1.0) -> float:
        """Take tokens and return 0; if there are too few, take none and return the seconds until there are enough."""
        now = self._clock()
        level, then = self._levels.get(caller, (self.burst, now))
        level = min(self.burst, level + (now - then) * self.rate)
        missing = tokens - level
        self._levels[caller] = (level if missing > 0 else level - tokens, now)
        return max(0.0, missing / self.rate)


class RateLimits:
    """The limits of the service per caller. Threads may not share it when there is no group."""

    def __init__(self, config: RecommendConfig) -> None:
        self._buckets: dict[What, TokenBuckets] = {
            "events": TokenBuckets(config.feedback_per_second, config.feedback_burst),
            "profiles": TokenBuckets(config.applicants_per_minute / 60, config.applicants_per_minute),
        }

    def wait(self, what: What, caller: str, tokens: int, group: ReplicaGroup | None) -> float:
        """Take tokens of a caller, over all replicas of the group; 0, or the seconds until there are enough."""
        buckets = self._buckets[what]
        if group is None:
            return buckets.wait(caller, tokens)
        try:
            return group.take(f"{what} {caller}", tokens, buckets.rate, buckets.burst)
        except DynaqError:  # the store is away, and nothing can be written to it, either
            return 0.0
