"""Visits of simulated applicants to a running API: a list, an answer per job, the events that people would send."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from dynaq.errors import DynaqError, InputError
from dynaq.feedback.events import WARM_START
from dynaq.judging.judgement import Judgement, JudgementSource, Label, Slate
from dynaq.judging.sampled import chance, draw
from recommend_service.config import API_KEY

__all__ = ["API_KEY", "Api", "Behaviour", "Visits"]

EVENTS: Mapping[Label, str] = {"APPLY": "apply", "SAVE": "save", "CLICK": "click", "IGNORE": "ignore"}
PATIENCE = 60.0  # seconds for which a call waits when it is told to
PAGE = 500


@dataclass(frozen=True)
class Behaviour:
    """How people behave.

    Args:
        seed: with the pair, decides the answer.
        k: jobs looked at.
        declines: share of IGNORE answers that are sent; the others pass over the job without a word.
    """

    seed: int = 0
    k: int = 10
    declines: float = 0.3

    def event(self, answer: Judgement) -> str | None:
        """What is sent for a drawn answer."""
        if answer.label is None:
            return None
        if (
            answer.label == "IGNORE"
            and chance(self.seed, "decline", answer.applicant_id, answer.job_id) >= self.declines
        ):
            return None
        return EVENTS[answer.label]


class Api:
    """The recommendation API's client. Waits where it is told to.

    waited: how often. seconds: name of a call → its durations.
    """

    def __init__(self, url: str, key: str | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._transport = transport
        self.waited = 0
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    async def __aenter__(self) -> Api:
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=self._headers,
            timeout=60.0,
            limits=httpx.Limits(max_connections=256),
            transport=self._transport,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def applicants(self, count: int) -> list[str]:
        """The first ids. Raises InputError when no such service answers."""
        found: list[str] = []
        after: str | None = ""
        while after is not None and len(found) < count:
            params = {"after": after, "limit": min(PAGE, count - len(found))}
            try:
                page = await self._call("applicants", "GET", "/v1/applicants", params=params)
                found += [one["id"] for one in page["applicants"]]
                after = page["next"]
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                reason = str(error) or type(error).__name__
                raise InputError(f"no recommendation service answers at {self.url} ({reason})") from error
        return found

    async def recommendations(self, applicant_id: str, k: int) -> dict[str, Any]:
        """An applicant's list of k jobs. Raises httpx.HTTPError."""
        path = f"/v1/applicants/{quote(applicant_id, safe='')}/recommendations"
        return await self._call("recommendations", "GET", path, params={"k": k})

    async def feedback(self, events: list[dict[str, str]], key: str) -> dict[str, Any]:
        """Send events under an idempotency key. Raises httpx.HTTPError."""
        headers = {"Idempotency-Key": key}
        return await self._call("feedback", "POST", "/v1/feedback", json={"events": events}, headers=headers)

    async def _call(self, name: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Raises httpx.HTTPError, with the service's own words where it gave some."""
        deadline = time.monotonic() + PATIENCE
        while True:
            began = time.perf_counter()
            answer = await self._http.request(method, path, **options)
            self.seconds[name].append(time.perf_counter() - began)
            pause = _seconds(answer.headers.get("Retry-After"))
            if answer.status_code not in (429, 503) or time.monotonic() + pause > deadline:
                break
            self.waited += 1
            await asyncio.sleep(pause)
        if answer.is_error or answer.is_redirect:
            problem = answer.json().get("detail", "") if "json" in answer.headers.get("content-type", "") else ""
            text = f"{answer.status_code} {problem or answer.reason_phrase}"
            raise httpx.HTTPStatusError(text, request=answer.request, response=answer)
        body: dict[str, Any] = answer.json()
        return body


class Visits:
    """Runs visits and counts what came of them. on_progress: called with visits done and in all."""

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
        """Everybody visits once per round, at most `rate` a second and `concurrency` at once. Returns the summary.

        Raises InputError when no service answers, JudgeError when the judge fails.
        """
        began = time.monotonic()
        async with self._api:
            people = await self._api.applicants(applicants)
            if not people:
                raise InputError(f"the service at {self._api.url} has no applicants; ingest some")
            room = asyncio.Semaphore(concurrency)
            start = time.monotonic()
            total = rounds * len(people)
            try:
                for round_ in range(rounds):
                    async with asyncio.TaskGroup() as group:
                        for i, applicant_id in enumerate(people):
                            due = start + (round_ * len(people) + i) / rate
                            await asyncio.sleep(max(0.0, due - time.monotonic()))
                            await room.acquire()
                            group.create_task(self._visit(applicant_id, room, total))
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
        return self._summary(len(people), time.monotonic() - began)

    def check(self) -> None:
        """Raises DynaqError when visits failed."""
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
        """Nobody saves again what is marked as saved."""
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

    def _summary(self, people: int, seconds: float) -> dict[str, Any]:
        calls = {name: 1000.0 * np.array(times) for name, times in self._api.seconds.items() if name != "applicants"}
        return {
            "applicants": people,
            "visits": self._done,
            "seconds": round(seconds, 3),
            "events": {event: self._events[event] for event in EVENTS.values()},
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


def _seconds(text: str | None) -> float:
    try:
        return max(0.1, float(text or 1.0))
    except ValueError:
        return 1.0
