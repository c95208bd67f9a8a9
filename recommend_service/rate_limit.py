"""How much one caller may send."""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import LRUCache

CALLERS = 10_000  # remembered; whoever was quiet longest is forgotten, which gives them a full bucket


class TokenBuckets:
    """A token bucket per caller: `rate` per second, `burst` at once.

    clock: seconds, for tests.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(CALLERS)  # caller -> tokens, when

    def wait(self, caller: str, tokens: float = 1.0) -> float:
        """0 when the tokens are taken; else seconds until they will be there, and nothing is taken."""
        now = self._clock()
        level, then = self._levels.get(caller, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        missing = tokens - level
        self._levels[caller] = (level if missing > 0 else level - tokens, now)
        return max(0.0, missing / self._rate)
