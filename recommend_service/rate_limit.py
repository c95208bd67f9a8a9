"""Limits how much one caller may send."""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import LRUCache

CALLERS = 10_000  # remembered; beyond that, the least recent caller is forgotten and starts again with a full bucket


class TokenBuckets:
    """A token bucket per caller: refilled at `rate` per second, up to `burst`.

    clock: time in seconds, replaced by tests.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(CALLERS)  # caller -> tokens, when

    def wait(self, caller: str, tokens: float = 1.0) -> float:
        """Take tokens and return 0; if there are too few, take none and return the seconds until there are enough."""
        now = self._clock()
        level, then = self._levels.get(caller, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        missing = tokens - level
        self._levels[caller] = (level if missing > 0 else level - tokens, now)
        return max(0.0, missing / self._rate)
