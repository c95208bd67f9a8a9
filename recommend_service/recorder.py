"""Writes feedback and exposures in a thread of its own, many callers' in one durable write.

What waits while the disk is busy goes down together with the next write (group commit), so that the rate of calls is
not that of the disk's syncs. A caller's future is done once its events are on the disk. First in, first out: an
exposure that was handed in before an event is on the disk before that event is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from dynaq.errors import DynaqError
from dynaq.feedback.events import Exposure, FeedbackEvent
from dynaq.stores import FeedbackStore

logger = logging.getLogger(__name__)
MAX_ROWS = 5000  # of one write

Answer = asyncio.Future[None]


class Overloaded(DynaqError):
    """More waits for the disk than is allowed."""


@dataclass(frozen=True)
class _Work:
    events: Sequence[FeedbackEvent] = ()
    exposure: Exposure | None = None
    answer: Answer | None = None


class Recorder:
    """Owns the store that it is given. Made, used and closed from one event loop."""

    def __init__(self, store: FeedbackStore, max_waiting: int) -> None:
        self._store = store
        self._queue: queue.Queue[_Work | None] = queue.Queue(max_waiting)
        self._loop = asyncio.get_running_loop()
        self.lost_exposures = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls and exposures that are not on the disk yet."""
        return self._queue.qsize()

    async def add(self, events: Sequence[FeedbackEvent]) -> None:
        """Returns when the events are on the disk. Raises Overloaded, DynaqError when they are not."""
        answer = self._loop.create_future()
        self._put(_Work(events=events, answer=answer))
        await asyncio.shield(answer)

    def expose(self, exposure: Exposure) -> None:
        """Hand in an exposure. Raises Overloaded."""
        self._put(_Work(exposure=exposure))

    async def close(self) -> None:
        """Write what waits, then close the store."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._queue.put, None)
            await asyncio.to_thread(self._thread.join)

    def _put(self, work: _Work) -> None:
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            raise Overloaded("more feedback waits for the disk than is allowed; try again") from None

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._take()
            self._write_exposures([work.exposure for work in batch if work.exposure is not None])
            self._write_events([work for work in batch if work.answer is not None])
        try:
            self._store.close()
        except DynaqError:
            logger.exception("the feedback store was not closed well; what was acknowledged is kept")

    def _take(self) -> tuple[list[_Work], bool]:
        """What waits, at least one, up to MAX_ROWS; and whether it is the end."""
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
            rows += 1 + len(work.events)
        return batch, False

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
        failure: Exception | None = None
        try:
            self._store.add_feedback([event for work in batch for event in work.events])
        except Exception as error:
            logger.error("feedback was not written: %s", error)
            failure = error if isinstance(error, DynaqError) else DynaqError(f"{type(error).__name__}: {error}")
        answers = [work.answer for work in batch if work.answer is not None]
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(_tell, answers, failure)


def _tell(answers: list[Answer], failure: Exception | None) -> None:
    for answer in answers:
        if answer.done():
            continue
        if failure is None:
            answer.set_result(None)
        else:
            answer.set_exception(failure)
            answer.exception()  # its caller may be gone
