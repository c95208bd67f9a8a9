"""Follows in its own thread what other replicas store, so that this one knows it too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from dynaq.errors import DynaqError
from dynaq.stores import Added, Changes

logger = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0  # until the next try while the store cannot be reached


class Follower:
    """Hands what is added to a store to `take`, in the event loop in which it was created, until it is closed."""

    def __init__(self, changes: Changes, take: Callable[[Added], None]) -> None:
        self._changes, self._take = changes, take
        self._loop = asyncio.get_running_loop()
        self._ended = threading.Event()
        self.reached = True  # whether the store answered the last time
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop following."""
        self._ended.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                added = self._changes.next()
            except DynaqError as error:
                if self.reached:
                    logger.error("what other replicas store is not seen until the store answers again: %s", error)
                self.reached = False
                self._ended.wait(PAUSE_SECONDS)
                continue
            self.reached = True
            if added.events or added.applicants or added.erased:
                with contextlib.suppress(RuntimeError):  # the event loop is closed
                    self._loop.call_soon_threadsafe(self._take, added)
        self._changes.close()
