"""Writes feedback and exposures in its own thread, those of many callers in one durable write.

What arrives during a write goes into the next one (group commit), so that the rate of calls is not limited by the
disk's syncs. A call returns once its events are on disk. The queue is first in, first out: an exposure that was queued
before an event is on disk before that event is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dynaq.errors import DynaqError
from dynaq.feedback.events import Exposure, FeedbackEvent
from dynaq.stores import FeedbackStore

logger = logging.getLogger(__name__)
MAX_ROWS = 5000  # per write

T = TypeVar("T")
Answer = asyncio.Future[bool]


class Overloaded(DynaqError):
    """Too many writes are waiting for the disk."""


@dataclass(frozen=True)
class _Work:
    events: Sequence[FeedbackEvent] = ()
    exposure: Exposure | None = None
    answer: Answer | None = None
    call: Callable[[FeedbackStore], Any] | None = None
    result: asyncio.Future[Any] | None = None


class Recorder:
    """Queues writes to a store, which it owns. Create, use and close it in one event loop."""

    def __init__(self, store: FeedbackStore, max_waiting: int) -> None:
        self._store = store
        self._queue: queue.Queue[_Work | None] = queue.Queue(max_waiting)
        self._loop = asyncio.get_running_loop()
        self.lost_exposures = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of feedback calls and exposures that wait to be written."""
        return self._queue.qsize()

    async def add(self, events: Sequence[FeedbackEvent]) -> bool:
        """Write events; returns when they are on disk. Raises Overloaded or DynaqError when they were not written.

        The result says whether all were new; False also if only others that were written with them were not.
        """
        answer: Answer = self._loop.create_future()
        self._put(_Work(events=events, answer=answer))
        return await asyncio.shield(answer)

    async def run(self, call: Callable[[FeedbackStore], T]) -> T:
        """Call with the store after everything that was queued before. Raises Overloaded, and what the call raises."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._put(_Work(call=call, result=answer))
        return await asyncio.shield(answer)

    def expose(self, exposure: Exposure) -> None:
        """Queue an exposure without waiting for the disk. Raises Overloaded."""
        self._put(_Work(exposure=exposure))

    async def close(self) -> None:
        """Write what is queued, then close the store."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._queue.put, None)
            await asyncio.to_thread(self._thread.join)

    def _put(self, work: _Work) -> None:
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            raise Overloaded("too much feedback is waiting for the disk; try again") from None

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._take()
            self._write_exposures([work.exposure for work in batch if work.exposure is not None])
            self._write_events([work for work in batch if work.answer is not None])
            for work in batch:
                if work.call is not None:
                    self._call(work)
        try:
            self._store.close()
        except DynaqError:
            logger.exception("the feedback store could not be closed; acknowledged events are kept")

    def _take(self) -> tuple[list[_Work], bool]:
        """Wait for work and take up to about MAX_ROWS rows of it. The flag says whether it is the end."""
        batch: list[_Work] = []
        rows = 0
        while rows < MAX_ROWS:
            try:
                work = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if work is None:
                return batch, True
            batch.append(work)
            if work.call is not None:  # it comes after what was queued before it, and before what follows
                break
            rows += 1 + len(work.events)
        return batch, False

    def _call(self, work: _Work) -> None:
        assert work.call is not None
        assert work.result is not None
        failure: Exception | None = None
        found: Any = None
        try:
            found = work.call(self._store)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(_settle, work.result, found, failure)

    def _write_exposures(self, exposures: list[Exposure]) -> None:
        if not exposures:
            return
        try:
            self._store.add_exposures(exposures)
        except Exception as error:
            self.lost_exposures += len(exposures)
            logger.error("%d exposures were not written: %s", len(exposures), error)

    def _write_events(self, batch: list[_Work]) -> None:
        if not batch:
            return
        outcome: bool | Exception
        events = [event for work in batch for event in work.events]
        try:
            outcome = self._store.add_feedback(events) == len(events)
        except Exception as error:
            logger.error("feedback was not written: %s", error)
            outcome = error if isinstance(error, DynaqError) else DynaqError(f"{type(error).__name__}: {error}")
        answers = [work.answer for work in batch if work.answer is not None]
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so no caller waits any more
            self._loop.call_soon_threadsafe(_tell, answers, outcome)


def _settle(result: asyncio.Future[Any], found: Any, failure: Exception | None) -> None:
    if failure is None:
        result.set_result(found)
    else:
        result.set_exception(failure)
        result.exception()  # as in `_tell`


def _tell(answers: list[Answer], outcome: bool | Exception) -> None:
    for answer in answers:
        if answer.done():
            continue
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
            answer.exception()  # retrieved here, or asyncio would log it if the caller was cancelled
        else:
            answer.set_result(outcome)
