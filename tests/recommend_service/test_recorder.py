"""The writer's thread: what is acknowledged, and what is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dynaq.errors import DynaqError
from dynaq.feedback.events import Exposure, FeedbackEvent
from recommend_service.recorder import Overloaded, Recorder
from tests.support.events import START, event


class SlowStore:
    """Writes when it is let; remembers what came in one write. The part under test is the thread in front of it."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.writes: list[list[str]] = []
        self.broken = False
        self.closed = False

    def add_feedback(self, events: Sequence[FeedbackEvent]) -> int:
        self.let.wait(10)
        if self.broken:
            raise DynaqError("disk full")
        self.writes.append([event.key for event in events])
        return len(events)

    def add_exposures(self, exposures: Sequence[Exposure]) -> None:
        if self.broken:
            raise DynaqError("disk full")
        self.writes.append([exposure.key for exposure in exposures])

    def close(self) -> None:
        self.closed = True


def exposure(key: str) -> Exposure:
    return Exposure("a", key, START, ("j",), (1.0,), "run")


def test_nothing_is_acknowledged_before_it_is_written_and_what_waits_is_written_together() -> None:
    async def check() -> None:
        store = SlowStore()
        recorder = Recorder(store, 100)  # type: ignore[arg-type]
        first = asyncio.create_task(recorder.add([event("1")]))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(recorder.add([event(str(i)), event(f"{i}b")])) for i in range(2, 30)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in (first, *rest))
        store.let.set()
        await asyncio.gather(first, *rest)
        assert [len(write) for write in store.writes] == [1, 56]
        await recorder.close()
        assert store.closed

    asyncio.run(check())


def test_what_was_handed_in_is_written_before_the_end() -> None:
    async def check() -> None:
        store = SlowStore()
        store.let.set()
        recorder = Recorder(store, 100)  # type: ignore[arg-type]
        for i in range(50):
            recorder.expose(exposure(str(i)))
        await recorder.close()
        assert [key for write in store.writes for key in write] == [str(i) for i in range(50)]
        await recorder.close()

    asyncio.run(check())


def test_a_store_that_fails_is_told_to_everybody_who_waits_and_the_next_write_may_do_better() -> None:
    async def check() -> None:
        store = SlowStore()
        recorder = Recorder(store, 100)  # type: ignore[arg-type]
        store.broken = True
        store.let.set()
        recorder.expose(exposure("x"))
        failures = await asyncio.gather(*(recorder.add([event(str(i))]) for i in range(3)), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["disk full"] * 3
        assert recorder.lost_exposures == 1
        store.broken = False
        await recorder.add([event("later")])
        assert store.writes == [["later"]]
        await recorder.close()

    asyncio.run(check())


def test_more_than_may_wait_is_refused() -> None:
    async def check() -> None:
        store = SlowStore()
        recorder = Recorder(store, 2)  # type: ignore[arg-type]
        tasks = [asyncio.create_task(recorder.add([event("0")]))]
        await asyncio.sleep(0.1)  # taken out, waits for the disk
        tasks += [asyncio.create_task(recorder.add([event(str(i))])) for i in (1, 2)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            recorder.expose(exposure("x"))
        with pytest.raises(Overloaded):
            await recorder.add([event("3")])
        store.let.set()
        await asyncio.gather(*tasks)
        await recorder.close()

    asyncio.run(check())
