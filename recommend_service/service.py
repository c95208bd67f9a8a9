"""The service without HTTP: lists, feedback, new applicants, and background checks for new runs and catalogues."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import textwrap
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import numpy as np
from cachetools import TTLCache

from dynaq.encoder import Embedder, Encoder
from dynaq.errors import DynaqError, InputError
from dynaq.feedback.answers import StandingEvents
from dynaq.feedback.events import WARM_START, Event, Exposure, FeedbackEvent, events
from dynaq.feedback.exposure_policy import POOL, rank_probabilities
from dynaq.ingest.embedding import candidate_texts, content_hash, stored_encoder
from dynaq.personal.redaction import keeps_personal_data, says_something, without_personal_data
from dynaq.records import Candidate, Job
from dynaq.stores import Added, FloatArray, open_feedback, open_store
from recommend_service.applicant_ranking import Ranker, Ranking
from recommend_service.catalogue import ApplicantVectors, Catalogue, applicant_vectors
from recommend_service.config import RecommendConfig
from recommend_service.follower import Follower
from recommend_service.metrics import Metrics
from recommend_service.newcomers import Newcomers
from recommend_service.problems import Problem
from recommend_service.rate_limit import RateLimits, What
from recommend_service.recorder import Overloaded, Recorder
from recommend_service.run_watch import RunWatch, group_of
from recommend_service.schemas import (
    ApplicantList,
    ApplicantShown,
    Explanation,
    FeedbackIn,
    Recommendation,
    Recommendations,
)
from recommend_service.slates import Shown, Wish, choose, explain
from recommend_service.text_encoder import Texts

logger = logging.getLogger(__name__)
T = TypeVar("T")
SUMMARY = 300  # characters of a description in a list
FUTURE = timedelta(minutes=5)  # tolerance for clocks that differ
LEDGER_SECONDS = 60.0  # how long an applicant's judgements are cached
LEDGERS_KEPT = 1000  # applicants whose judgements are cached
LOOKUPS = 8  # short questions to a shared store at once
LOOKUP_SECONDS = 1.0  # after which a list is made from what this replica knows
NO_AGENT = "No agent has been trained for this applicant yet: ranked by similarity of profile and jobs."
BY_AGENT = "Ranked by the applicant's own agent."


class Recommender:
    """The service of one process. Call `start` before use and `stop` after it, both in the serving event loop.

    encoder: replaces the configured one.
    """

    def __init__(self, config: RecommendConfig, encoder: Embedder | None = None) -> None:
        self.config = config.with_secrets()
        self.metrics = Metrics()
        self._store = open_store(config.store, read_only=True)
        self._encoder = encoder or Encoder(config.encoder or stored_encoder(self._store))
        self._reading = ThreadPoolExecutor(1, "store")  # one thread, since stores need not be thread-safe
        self._ranking = ThreadPoolExecutor(2, "ranking")
        self._looking = ThreadPoolExecutor(LOOKUPS, "lookup")  # for stores that replicas share: they are thread-safe
        self._limits = RateLimits(self.config)
        self._ledgers: TTLCache[str, dict[str, dict[str, float]]] = TTLCache(LEDGERS_KEPT, LEDGER_SECONDS)
        self._store_problem: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._meetings: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Load everything that a first list needs. Idempotent. Raises InputError, DynaqError."""
        if self._tasks:
            return
        feedback = open_feedback(self.config.store)
        try:
            changes = feedback.changes()  # before all events are read, so that none is missed in between
            self._group = group_of(self.config, feedback)
            self._watch = RunWatch(self.config, self._group)
            self._newcomers = Newcomers(self._store, self._look_up if self._group is not None else None)
            self._standing = await self._read(lambda: StandingEvents.of(feedback.feedback()))
            catalogue = await self._read(lambda: Catalogue.load(self._store))
            self.ranker = await self._read(lambda: self._watch.first(catalogue))
        except BaseException:
            feedback.close()
            raise
        self._follower = None if changes is None else Follower(changes, self._learn)
        rank_probabilities(min(POOL, len(catalogue.job_ids)), self._sharpness)  # so that no request waits for it
        self._recorder = Recorder(feedback, self.config.max_waiting)
        self._texts = Texts(self.config.store, self._encoder)
        self.metrics.show_run(self.run_id)
        self._tasks = [
            asyncio.create_task(_every(self.config.poll_seconds, self._look_for_run)),
            asyncio.create_task(_every(self.config.catalogue_seconds, self._look_at_store)),
        ]

    async def stop(self) -> None:
        """Write what was accepted, and close the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._follower is not None:
            await self._follower.close()
        with contextlib.suppress(DynaqError):  # the store is away; the others miss this replica after its lease
            await self._read(self._watch.leave)
        await self._recorder.close()
        self._texts.close()
        for pool in (self._looking, self._ranking, self._reading):
            pool.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    @property
    def run_id(self) -> str | None:
        """The run whose agents rank, None if there is none."""
        return self.ranker.run.run_id if self.ranker.run is not None else None

    @property
    def problem(self) -> str | None:
        """Why a newer run or catalogue is not used, None if none is refused."""
        return self._watch.problem or self._store_problem

    def check_health(self) -> None:
        """Raises DynaqError if this replica cannot serve what the others serve."""
        self._watch.check_in_step()

    async def wait(self, what: What, caller: str, tokens: int) -> float:
        """Take tokens of a caller's limit; 0, or the seconds until there are enough."""
        if self._group is None:
            return self._limits.wait(what, caller, tokens, None)
        return await self._look_up(lambda: self._limits.wait(what, caller, tokens, self._group))

    # Lists

    async def recommend(self, applicant_id: str, k: int, preference: str | None, explained: bool) -> Recommendations:
        """Draw a list around the applicant's ranking, and store its exposure. Raises Problem, Overloaded."""
        ranker, wish = self.ranker, None
        applicant, profile = await self._newcomers.find(applicant_id, ranker.catalogue)
        text = " ".join((preference or "").split()) or None
        if text is not None:
            wish = Wish(await self._wish(text), self.config.preference_weight, self.config.shortlist)
        standing = await self._standing_now(applicant_id)
        ranking = await self._ranked(ranker, applicant, max(self.config.shortlist, POOL) + len(standing))
        draw = _generator(applicant_id, ranking.policy, text or "", datetime.now(UTC).date().isoformat())
        shown = choose(ranking, ranker.catalogue, standing, wish, k, draw, self._sharpness)
        jobs = [ranker.catalogue.job(row) for row in shown.ranking.rows.tolist()]
        exposure = self._expose(applicant_id, shown, jobs, text)
        agent = ranking.policy != WARM_START
        explanations: Sequence[Explanation | None] = [None] * len(jobs)
        if explained:
            judged = await self._judged(applicant_id)
            explanations = explain(shown, ranker.catalogue, applicant, profile, judged, agent)
        source = "agent" if agent else "warm-start"
        self.metrics.lists.labels(source).inc()
        return Recommendations(
            applicant_id=applicant_id,
            source="agent" if agent else "warm-start",
            note=BY_AGENT if agent else NO_AGENT,
            run_id=ranking.policy if agent else None,
            preference=text,
            exposure=exposure,
            recommendations=[
                Recommendation(
                    rank=rank,
                    job_id=job.id,
                    title=job.title,
                    summary=textwrap.shorten(job.description[: 2 * SUMMARY], SUMMARY, placeholder=" …"),
                    marked="save" if standing.get(job.id) == "save" else "click" if job.id in standing else None,
                    explanation=explanation,
                )
                for rank, (job, explanation) in enumerate(zip(jobs, explanations, strict=True), start=1)
            ],
        )

    @property
    def _sharpness(self) -> float:
        return self.config.sharpness if self.config.explore else math.inf

    async def _standing_now(self, applicant_id: str) -> dict[str, Event]:
        """Job -> standing event, with what another replica has just stored, so that the very next list knows it."""
        if self._follower is not None and self._follower.reached:
            look = self._look_up(lambda: self._store.feedback([applicant_id]))
            with contextlib.suppress(DynaqError, TimeoutError):  # the store is away: what was seen until now counts
                self._standing.add(events(await asyncio.wait_for(look, LOOKUP_SECONDS)))
        return self._standing.of_applicant(applicant_id)

    async def _wish(self, text: str) -> FloatArray:
        try:
            return await self._texts.preference(text)
        except InputError as error:
            raise Problem(409, "no-encoder", f"this service cannot use preferences: {error}") from error

    async def _ranked(self, ranker: Ranker, applicant: ApplicantVectors, depth: int) -> Ranking:
        ranking = ranker.peek(applicant.id, depth)
        if ranking is None:
            loop = asyncio.get_running_loop()
            ranking = await loop.run_in_executor(self._ranking, ranker.rank, applicant, depth)
        return ranking

    def _expose(self, applicant_id: str, shown: Shown, jobs: list[Job], preference: str | None) -> str:
        key = uuid.uuid4().hex
        if jobs:
            ids, policy = tuple(job.id for job in jobs), shown.ranking.policy
            self._recorder.expose(
                Exposure(applicant_id, key, datetime.now(UTC), ids, shown.propensities, policy, preference)
            )
        return key

    async def _judged(self, applicant_id: str) -> dict[str, dict[str, float]]:
        """Job -> probabilities of the newest judgement in the ledger, by any judge."""
        known = self._ledgers.get(applicant_id)
        if known is None:
            rows = await self._read(lambda: self._store.judgements(applicants=[applicant_id]).to_pylist())
            rows.sort(key=lambda row: row["created_at"])
            labels = ("apply", "save", "click", "ignore")
            known = {row["job_id"]: {label: row[f"p_{label}"] for label in labels} for row in rows}
            self._ledgers[applicant_id] = known
        return known

    def job(self, job_id: str) -> Job:
        """A job of the catalogue. Raises Problem if there is none with this id."""
        row = self.ranker.catalogue.rows.get(job_id)
        if row is None:
            raise Problem(404, "unknown-job", f"job {job_id!r} is not in the catalogue")
        return self.ranker.catalogue.job(row)

    def applicants(self, after: str, limit: int) -> ApplicantList:
        """The first `limit` applicants after `after`, ordered by id."""
        ranker = self.ranker
        ids = ranker.catalogue.applicant_ids_after(after, limit + 1)
        if newcomers := self._newcomers.after(after, ranker.catalogue):
            ids = sorted([*ids, *newcomers])[: limit + 1]
        shown = [
            ApplicantShown(id=one, headline=_headline(known[1]), has_agent=ranker.has_agent(one))
            for one in ids[:limit]
            if (known := self._newcomers.known(one, ranker.catalogue)) is not None
        ]
        return ApplicantList(applicants=shown, next=ids[limit - 1] if len(ids) > limit else None)

    # Feedback and new applicants

    async def feedback(self, given: Sequence[FeedbackIn], key: str | None) -> list[FeedbackEvent]:
        """Store events; they are on disk when this returns. Raises Problem, Overloaded."""
        now = datetime.now(UTC)
        records: list[FeedbackEvent] = []
        for index, one in enumerate(given):
            place = f"events[{index}]: " if len(given) > 1 else ""
            await self._check(one, now, place)
            try:
                records.append(one.record(now, key))
            except (InputError, OverflowError) as error:
                raise Problem(422, "invalid-request", f"{place}{error}") from error
        # Shielded: what a caller has sent is stored and counted even if they disconnect.
        await asyncio.shield(asyncio.ensure_future(self._keep(records)))
        return records

    async def _keep(self, records: list[FeedbackEvent]) -> None:
        try:
            new = await self._recorder.add(records)
        except Overloaded:
            raise
        except DynaqError as error:
            raise Problem(503, "store-unavailable", f"no event was stored: {error}", retry_after=5) from error
        if new:
            self._standing.add(records)
        else:  # some were stored before, perhaps with another time, and that one counts
            applicants = list({one.applicant_id for one in records})
            self._standing.add(events(await self._read(lambda: self._store.feedback(applicants))))
        for event in records:
            self.metrics.events.labels(event.event).inc()

    async def _check(self, one: FeedbackIn, now: datetime, place: str) -> None:
        catalogue, run = self.ranker.catalogue, self.ranker.run
        try:
            await self._newcomers.find(one.applicant_id, catalogue)
        except Problem as problem:
            raise Problem(problem.status, problem.name, f"{place}{problem.detail}", problem.retry_after) from problem
        # A job that has just left the catalogue may still be on an applicant's screen.
        if one.job_id not in catalogue.rows and (run is None or one.job_id not in run.columns):
            raise Problem(404, "unknown-job", f"{place}job {one.job_id!r} is not in the catalogue")
        if one.at is not None and one.at > now + FUTURE:
            raise Problem(422, "invalid-request", f"{place}at {one.at.isoformat()} lies in the future")

    async def create(self, applicant: Candidate, repeatable: bool) -> None:
        """Embed and store a profile; its recommendations are available when this returns. Raises Problem.

        Personal data is removed first, unless the store keeps it.

        repeatable: the same profile that is there already is the result of an earlier attempt, not a conflict.
        """
        layout = self.ranker.catalogue.layout
        if not keeps_personal_data(await self._read(self._store.meta)):
            applicant, _ = without_personal_data(applicant)
            if not says_something(applicant):
                raise Problem(422, "invalid-request", "without personal data, bio, skills and experience are all empty")
        try:
            blocks = await self._texts.profile(applicant, layout)
        except InputError as error:
            raise Problem(409, "no-encoder", f"this service cannot create applicants: {error}") from error
        hash_ = content_hash(candidate_texts(applicant), layout)

        def write() -> Candidate | None:
            with open_store(self.config.store) as store:
                return store.add_applicant(applicant, blocks, hash_)

        try:
            before = await self._read(write)
        except DynaqError as error:  # a folder store allows one writer at a time
            raise Problem(503, "store-busy", str(error), retry_after=5) from error
        if before is not None and not (repeatable and before == applicant):
            raise Problem(409, "applicant-exists", f"applicant {applicant.id!r} is in the store already")
        self._newcomers.add((applicant_vectors(applicant.id, blocks, layout), applicant))

    # In the background

    def _learn(self, added: Added) -> None:
        """Take over what any replica, this one included, has stored."""
        self._standing.add(added.events)
        catalogue = self.ranker.catalogue
        for one in added.applicants:
            if self._newcomers.known(one, catalogue) is None:
                task = asyncio.create_task(self._meet(one))
                self._meetings.add(task)
                task.add_done_callback(self._meetings.discard)

    async def _meet(self, applicant_id: str) -> None:
        with contextlib.suppress(Problem):  # gone again; or the store is away, and a request will look again
            await self._newcomers.find(applicant_id, self.ranker.catalogue)

    async def _look_for_run(self) -> None:
        async with self._changing:
            await self._take(self.ranker.catalogue)

    async def _look_at_store(self) -> None:
        async with self._changing:
            before = self.ranker.catalogue
            try:
                catalogue = await self._read(lambda: Catalogue.load(self._store, before))
            except DynaqError as error:
                logger.error("the store cannot be read; its last snapshot is kept: %s", error)
                self._store_problem = str(error)
                return
            self._store_problem = None
            await self._take(catalogue)
        self._newcomers.forget(self.ranker.catalogue)

    async def _take(self, catalogue: Catalogue) -> None:
        """Switch to this catalogue, and to the newest run."""
        ranker = await self._read(lambda: self._watch.ranker(catalogue, self.ranker))
        if ranker is not self.ranker:
            self.ranker = ranker
            self.metrics.show_run(self.run_id)

    def observe(self) -> None:
        """Bring the gauges up to date."""
        ranker, metrics = self.ranker, self.metrics
        metrics.jobs.set(len(ranker.catalogue.job_ids))
        metrics.cached.set(ranker.cached)
        metrics.hits.set(ranker.hits)
        metrics.misses.set(ranker.misses)
        metrics.unreadable.set(ranker.unreadable)
        metrics.waiting.set(self._recorder.waiting)
        metrics.lost.set(self._recorder.lost_exposures)
        metrics.refused.set(self._watch.refused)

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, call)

    async def _look_up(self, call: Callable[[], T]) -> T:
        """A short question to a store that replicas share, which need not wait for a long one."""
        return await asyncio.get_running_loop().run_in_executor(self._looking, call)


async def _every(seconds: float, look: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await look()
        except Exception:  # whatever failed, the next check may succeed
            logger.exception("a background check failed")


def _generator(*parts: str) -> np.random.Generator:
    """A generator seeded by the parts: reloading a page gives the same list, another day or run gives another one."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _headline(applicant: Candidate) -> str:
    titles = ", ".join(position.title for position in applicant.experience[:2])
    return (titles or applicant.bio or ", ".join(applicant.hard_skills))[:80]
