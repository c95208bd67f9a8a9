"""Visits of simulated applicants to a running API: each gets a list, answers every job, and sends the events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from dynaq.errors import DynaqError, InputError
from dynaq.feedback.events import WARM_START, Event
from dynaq.judging.judgement import Judgement, JudgementSource, Label, Slate
from dynaq.judging.sampled import chance, draw
from recommend_service.client import Api

EVENT_OF_LABEL: Mapping[Label, Event] = {"APPLY": "apply", "SAVE": "save", "CLICK": "click", "IGNORE": "ignore"}


@dataclass(frozen=True)
class Behaviour:
    """How simulated applicants behave.

    Args:
        seed: determines the answer, together with the pair.
        k: length of the list.
        declines: share of IGNORE answers that are sent as events; the others leave no event.
    """

    seed: int = 0
    k: int = 10
    declines: float = 0.3

    def event(self, answer: Judgement) -> Event | None:
        """The event sent for a drawn answer, None for none."""
        if answer.label is None:
            return None
        if (
            answer.label == "IGNORE"
            and chance(self.seed, "decline", answer.applicant_id, answer.job_id) >= self.declines
        ):
            return None
        return EVENT_OF_LABEL[answer.label]


class Visits:
    """Runs visits and counts their outcomes. on_progress: called with the numbers of finished and of all visits."""

    def __init__(
        self,
        api: Api,
        source: JudgementSource,
        behaviour: Behaviour,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._api, self._source, self._behaviour, self._on_progress = api, source, behaviour, on_progress
        self._events: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._rewards: defaultdict[str, list[float]] = defaultdict(list)
        self._done = 0

    async def run(self, applicants: int, rounds: int, rate: float, concurrency: int) -> dict[str, Any]:
        """Every applicant visits once per round, at most `rate` a second and `concurrency` at once.

        Returns the summary. Raises InputError when no service answers, JudgeError when the judge fails.
        """
        began = time.monotonic()
        async with self._api:
            ids = await self._api.applicants(applicants)
            if not ids:
                raise InputError(f"the service at {self._api.url} has no applicants; ingest some")
            room = asyncio.Semaphore(concurrency)
            start = time.monotonic()
            total = rounds * len(ids)
            try:
                for round_ in range(rounds):
                    async with asyncio.TaskGroup() as group:
                        for i, applicant_id in enumerate(ids):
                            due = start + (round_ * len(ids) + i) / rate
                            await asyncio.sleep(max(0.0, due - time.monotonic()))
                            await room.acquire()
                            group.create_task(self._visit(applicant_id, room, total))
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
        return self._summary(len(ids), time.monotonic() - began)

    def check(self) -> None:
        """Check that no visit failed. Raises DynaqError otherwise."""
        failed = sum(self._failures.values())
        if failed:
            reason, count = self._failures.most_common(1)[0]
            raise DynaqError(f"{failed} of {self._done} visits failed, {count} of them with: {reason}")

    async def _visit(self, applicant_id: str, room: asyncio.Semaphore, total: int) -> None:
        try:
            shown = await self._api.recommendations(applicant_id, self._behaviour.k)
            marks = {item["job_id"]: item["marked"] for item in shown["recommendations"]}
            if marks:
                slate = Slate(applicant_id, tuple(marks))
                (answers,) = await asyncio.to_thread(self._source.fetch, [slate])
                drawn = [draw(answer, self._behaviour.seed) for answer in answers]
                self._rewards[shown["run_id"] or WARM_START].append(sum(one.reward or 0.0 for one in drawn))
                await self._send(applicant_id, drawn, marks, shown["exposure"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._failures[str(error) or type(error).__name__] += 1
        finally:
            room.release()
            self._done += 1
            self._on_progress(self._done, total)

    async def _send(
        self, applicant_id: str, answers: list[Judgement], marks: Mapping[str, str | None], exposure: str
    ) -> None:
        """Send the events of the answers, except those that a job is already marked with."""
        chosen = [(answer.job_id, self._behaviour.event(answer)) for answer in answers]
        sent = [(job_id, event) for job_id, event in chosen if event is not None and event != marks[job_id]]
        if not sent:
            return
        events = [
            {"applicant_id": applicant_id, "job_id": job_id, "event": event, "source": "simulate"}
            for job_id, event in sent
        ]
        await self._api.feedback(events, key=f"simulate-{exposure}")
        self._events.update(event for _, event in sent)

    def _summary(self, applicants: int, seconds: float) -> dict[str, Any]:
        calls = {name: 1000.0 * np.array(times) for name, times in self._api.seconds.items() if name != "applicants"}
        return {
            "applicants": applicants,
            "visits": self._done,
            "seconds": round(seconds, 3),
            "events": {event: self._events[event] for event in EVENT_OF_LABEL.values()},
            "policies": {
                policy: {"lists": len(rewards), "mean_reward": float(np.mean(rewards))}
                for policy, rewards in self._rewards.items()
            },
            "latency_ms": {
                name: {
                    "calls": len(times),
                    **{f"p{q}": round(float(np.percentile(times, q)), 3) for q in (50, 95, 99)},
                    "max": round(float(times.max()), 3),
                }
                for name, times in calls.items()
            },
            "calls_per_second": round(sum(map(len, calls.values())) / seconds, 3),
            "waited": self._api.waited,
            "failures": dict(self._failures),
        }
