"""The service without HTTP: lists, feedback, new applicants, and background checks for new runs and catalogues."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import numpy as np
from cachetools import TTLCache

from dynaq.encoder import Embedder, Encoder
from dynaq.errors import DynaqError, InputError
from dynaq.feedback.answers import HIDES, StandingEvents
from dynaq.feedback.events import MAX_PREFERENCE, OVERSEEN, WARM_START, Event, Exposure, FeedbackEvent, events
from dynaq.feedback.exposure_policy import POOL, rank_probabilities
from dynaq.ingest.embedding import stored_encoder
from dynaq.records import Candidate, Job
from dynaq.stores import Added, FloatArray, open_feedback, open_store
from recommend_service.applicant_ranking import Ranker, Ranking
from recommend_service.catalogue import ApplicantVectors, Catalogue
from recommend_service.config import RecommendConfig
from recommend_service.facets import Facet, facets_of
from recommend_service.follower import Follower
from recommend_service.metrics import Metrics
from recommend_service.newcomers import Applicant, Newcomers
from recommend_service.oversight import Decisions, parts, set_aside, with_pinned
from recommend_service.problems import Problem
from recommend_service.profiles import Profiles
from recommend_service.rate_limit import RateLimits, What
from recommend_service.recorder import Overloaded, Recorder
from recommend_service.rights import Rights
from recommend_service.run_views import RunViews
from recommend_service.run_watch import RunWatch, group_of
from recommend_service.schemas import (
    Erasure,
    Explanation,
    FeedbackIn,
    Recommendation,
    Recommendations,
)
from recommend_service.slates import Shown, Wish, choose, explain, summary
from recommend_service.text_encoder import Texts

logger = logging.getLogger(__name__)
T = TypeVar("T")
FUTURE = timedelta(minutes=5)  # tolerance for clocks that differ
EXPIRY_SECONDS = 3600.0  # between two deletions of what is too old
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
        self.store = open_store(config.store, read_only=True)
        self._encoder = encoder or Encoder(config.encoder or stored_encoder(self.store))
        self._reading = ThreadPoolExecutor(1, "store")  # one thread, since stores need not be thread-safe
        self._ranking = ThreadPoolExecutor(2, "ranking")
        self._looking = ThreadPoolExecutor(LOOKUPS, "lookup")  # for stores that replicas share: they are thread-safe
        self._limits = RateLimits(self.config)
        self.run_views = RunViews(self.config)
        self._ledgers: TTLCache[str, dict[str, dict[str, float]]] = TTLCache(LEDGERS_KEPT, LEDGER_SECONDS)
        self._store_problem: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._meetings: set[asyncio.Task[None]] = set()
        self._erasing: set[str] = set()
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
            self.newcomers = Newcomers(self.store, self._look_up if self._group is not None else None)
            self._standing = await self.read(lambda: StandingEvents.of(feedback.feedback()))
            decisions = Decisions(await self.read(feedback.decisions))
            catalogue = await self.read(lambda: Catalogue.load(self.store))
            self.ranker = await self.read(lambda: self._watch.first(catalogue))
        except BaseException:
            feedback.close()
            raise
        self._follower = None if changes is None else Follower(changes, self._learn)
        rank_probabilities(
            min(POOL, max(1, len(catalogue.job_ids))), self._sharpness
        )  # so that no request waits for it
        self._recorder = Recorder(feedback, self.config.max_waiting)
        self.rights = Rights(
            self.config, self.store, self._recorder, decisions, self.read, shared=self._group is not None
        )
        self._texts = Texts(self.config.store, self._encoder)
        self.profiles = Profiles(self.config.store, self.store, self._texts, self.read, self.rights.erased)
        self.metrics.show_run(self.run_id)
        self._tasks = [
            asyncio.create_task(_every(self.config.poll_seconds, self._look_for_run)),
            asyncio.create_task(_every(self.config.catalogue_seconds, self._look_at_store)),
        ]
        if self.config.keep_days is not None:
            await self._expire()
            self._tasks.append(asyncio.create_task(_every(EXPIRY_SECONDS, self._expire)))

    async def stop(self) -> None:
        """Write what was accepted, and close the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._follower is not None:
            await self._follower.close()
        with contextlib.suppress(DynaqError):  # the store is away; the others miss this replica after its lease
            await self.read(self._watch.leave)
        await self._recorder.close()
        self._texts.close()
        for pool in (self._looking, self._ranking, self._reading):
            pool.shutdown(wait=True, cancel_futures=True)
        self.store.close()

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

    async def recommend(
        self,
        applicant_id: str,
        k: int,
        preference: str | None,
        explained: bool,
        *,
        filters: Mapping[Facet, str] | None = None,
        recorded: bool = True,
    ) -> Recommendations:
        """Draw a list around the applicant's ranking, and store its exposure. Raises Problem, Overloaded.

        Args:
            applicant_id: the applicant.
            k: length of the list.
            preference: by which it is ordered, in free text.
            explained: whether to say why each job is on it.
            filters: values that its jobs have to have.
            recorded: whether the applicant is shown the list, so that it is stored as an exposure.
        """
        ranker, wish = self.ranker, None
        applicant, profile = await self.applicant(applicant_id)
        text = " ".join((preference or "").split()) or None
        if text is not None:
            wish = Wish(await self._wish(text), self.config.preference_weight, self.config.shortlist)
        standing = await self.standing_now(applicant_id)
        decided = self.rights.decisions.of_applicant(applicant_id)
        drawn_by = set_aside(standing, decided)
        depth = max(self.config.shortlist, POOL) + len(drawn_by)
        ranking = await self.ranked(ranker, applicant, depth, filters)
        asked = "; ".join(filter(None, [text, *(f"{facet}: {value}" for facet, value in (filters or {}).items())]))
        draw = _generator(applicant_id, ranking.policy, text or "", datetime.now(UTC).date().isoformat())
        shown = choose(ranking, ranker.catalogue, drawn_by, wish, k, draw, self._sharpness)
        pinned = [one for one, action in decided.items() if action == "pin" and standing.get(one) not in HIDES]
        pinned = [] if filters else pinned
        shown = with_pinned(shown, ranking, ranker.catalogue, pinned, k)
        jobs = [ranker.catalogue.job(row) for row in shown.ranking.rows.tolist()]
        policy = OVERSEEN if decided else ranking.policy
        exposure = self._expose(applicant_id, shown, jobs, asked[:MAX_PREFERENCE] or None, policy) if recorded else None
        agent = ranking.policy != WARM_START
        explanations: Sequence[Explanation | None] = [None] * len(jobs)
        if explained:
            judged = await self.judged(applicant_id)
            explanations = explain(shown, ranker.catalogue, applicant, profile, judged, agent, wish)
        source: Literal["agent", "warm-start"] = "agent" if agent else "warm-start"
        self.metrics.lists.labels(source).inc()
        return Recommendations(
            applicant_id=applicant_id,
            source=source,
            note=BY_AGENT if agent else NO_AGENT,
            run_id=ranking.policy if agent else None,
            preference=text,
            exposure=exposure,
            parts=parts(source, ranker.judge, standing, decided, wish=wish is not None, explored=self.config.explore),
            recommendations=[
                Recommendation(
                    rank=rank,
                    placed_by="person" if job.id in pinned else "model",
                    exploring=exploring,
                    job_id=job.id,
                    title=job.title,
                    summary=summary(job.description),
                    facets={facet: ", ".join(texts) for facet, texts in facets_of(job.metadata).items()},
                    marked="save" if standing.get(job.id) == "save" else "click" if job.id in standing else None,
                    explanation=explanation,
                )
                for rank, (job, explanation, exploring) in enumerate(
                    zip(jobs, explanations, shown.exploring, strict=True), start=1
                )
            ],
        )

    @property
    def _sharpness(self) -> float:
        return self.config.sharpness if self.config.explore else math.inf

    async def applicant(self, applicant_id: str) -> Applicant:
        """An applicant, as this service or any replica knows them now. Raises Problem for an unknown one."""
        if applicant_id in self.rights.erased:
            raise Problem(404, "unknown-applicant", f"applicant {applicant_id!r} is not in the store")
        return await self.newcomers.find(applicant_id, self.ranker.catalogue)

    def _check_known(self, applicant_id: str) -> None:
        """Raises Problem if an applicant who was found before has been erased meanwhile."""
        erased = applicant_id in self.rights.erased
        if erased or self.newcomers.known(applicant_id, self.ranker.catalogue) is None:
            raise Problem(404, "unknown-applicant", f"applicant {applicant_id!r} is not in the store")

    async def standing_now(self, applicant_id: str) -> dict[str, Event]:
        """Job -> standing event, with what another replica has just stored, so that the very next list knows it.

        Operators' decisions are brought up to date, too.
        """
        if self._follower is not None and self._follower.reached:
            look = self._look_up(lambda: (self.store.feedback([applicant_id]), self.store.decisions([applicant_id])))
            with contextlib.suppress(DynaqError, TimeoutError):  # the store is away: what was seen until now counts
                fed, decided = await asyncio.wait_for(look, LOOKUP_SECONDS)
                self._check_known(applicant_id)
                self._standing.add(events(fed))
                self.rights.decisions.add_table(decided)
        return self._standing.of_applicant(applicant_id)

    async def _wish(self, text: str) -> FloatArray:
        try:
            return await self._texts.preference(text)
        except InputError as error:
            raise Problem(409, "no-encoder", f"this service cannot use preferences: {error}") from error

    async def ranked(
        self,
        ranker: Ranker,
        applicant: ApplicantVectors,
        depth: int,
        filters: Mapping[Facet, str] | None = None,
    ) -> Ranking:
        """The applicant's ranking of at least `depth` jobs, of those that have the values of the filters."""
        if filters:
            return await self.compute(lambda: ranker.rank(applicant, depth, ranker.catalogue.facets.mask(filters)))
        ranking = ranker.peek(applicant.id, depth)
        return ranking if ranking is not None else await self.compute(lambda: ranker.rank(applicant, depth))

    def _expose(self, applicant_id: str, shown: Shown, jobs: list[Job], preference: str | None, policy: str) -> str:
        self._check_known(applicant_id)  # again, just before it is queued: they may have been erased meanwhile
        key = uuid.uuid4().hex
        if jobs:
            ids = tuple(job.id for job in jobs)
            self._recorder.expose(
                Exposure(applicant_id, key, datetime.now(UTC), ids, shown.propensities, policy, preference)
            )
        return key

    async def judged(self, applicant_id: str) -> dict[str, dict[str, float]]:
        """Job -> probabilities of the newest judgement in the ledger, by any judge."""
        known = self._ledgers.get(applicant_id)
        if known is None:
            rows = await self.read(lambda: self.store.judgements(applicants=[applicant_id]).to_pylist())
            rows.sort(key=lambda row: row["created_at"])
            labels = ("apply", "save", "click", "ignore")
            known = {row["job_id"]: {label: row[f"p_{label}"] for label in labels} for row in rows}
            if applicant_id not in self.rights.erased:
                self._ledgers[applicant_id] = known
        return known

    def job(self, job_id: str) -> Job:
        """A job of the catalogue. Raises Problem if there is none with this id."""
        row = self.ranker.catalogue.rows.get(job_id)
        if row is None:
            raise Problem(404, "unknown-job", f"job {job_id!r} is not in the catalogue")
        return self.ranker.catalogue.job(row)

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
        for one in records:
            self._check_known(one.applicant_id)
        try:
            new = await self._recorder.add(records)
        except Overloaded:
            raise
        except DynaqError as error:
            raise Problem(503, "store-unavailable", f"no event was stored: {error}", retry_after=5) from error
        if new:
            known: Iterable[FeedbackEvent] = records
        else:  # some were stored before, perhaps with another time, and that one counts
            applicants = list({one.applicant_id for one in records})
            known = events(await self.read(lambda: self.store.feedback(applicants)))
        self._standing.add(one for one in known if one.applicant_id not in self.rights.erased)
        for event in records:
            self.metrics.events.labels(event.event).inc()

    async def _check(self, one: FeedbackIn, now: datetime, place: str) -> None:
        catalogue, run = self.ranker.catalogue, self.ranker.run
        try:
            await self.applicant(one.applicant_id)
        except Problem as problem:
            raise Problem(problem.status, problem.name, f"{place}{problem.detail}", problem.retry_after) from problem
        # A job that has just left the catalogue may still be on an applicant's screen.
        if one.job_id not in catalogue.rows and (run is None or one.job_id not in run.columns):
            raise Problem(404, "unknown-job", f"{place}job {one.job_id!r} is not in the catalogue")
        if one.at is not None and one.at > now + FUTURE:
            raise Problem(422, "invalid-request", f"{place}at {one.at.isoformat()} lies in the future")

    async def create(self, applicant: Candidate, repeatable: bool) -> None:
        """Embed and store a profile; its recommendations are available when this returns. Raises Problem.

        repeatable: the same profile that is there already is the result of an earlier attempt, not a conflict.
        """
        catalogue = self.ranker.catalogue
        if not catalogue.job_ids:
            raise Problem(409, "no-jobs", "the store has no jobs yet; bring some with `dynaq ingest --jobs FILE`")
        known = await self.profiles.create(applicant, catalogue.layout, repeatable=repeatable)
        self.rights.erased.discard(applicant.id)
        self.newcomers.add(known)

    async def change(self, applicant: Candidate) -> None:
        """Embed and store a changed profile; lists follow it when this returns. Raises Problem."""
        await self.applicant(applicant.id)
        known = await self.profiles.change(applicant, self.ranker.catalogue.layout)
        if applicant.id not in self.ranker.catalogue:
            self.newcomers.add(known)
        await self._look_at_store()
        self.ranker.forget(applicant.id)

    # Rights

    async def forget(self, applicant_id: str) -> Erasure:
        """Erase an applicant from the store, the runs that serve or served, and memory. Raises Problem."""
        self._erasing.add(applicant_id)
        try:
            erasure = await self.rights.erase(applicant_id)
            self._drop(applicant_id)
        finally:
            self._erasing.discard(applicant_id)
        await self._look_for_run()
        await self._look_at_store()
        return erasure

    def _drop(self, applicant_id: str) -> None:
        """Remove an applicant from memory, except from the catalogue, which is loaded anew."""
        self.newcomers.drop(applicant_id)
        self._standing.forget(applicant_id)
        self.rights.decisions.forget(applicant_id)
        self._ledgers.pop(applicant_id, None)
        self.ranker.forget(applicant_id)
        self.run_views.forget()

    async def _expire(self) -> None:
        self._standing = await self.rights.expire() or self._standing

    # In the background

    def _learn(self, added: Added) -> None:
        """Take over what any replica, this one included, has stored."""
        self._standing.add(one for one in added.events if one.applicant_id not in self.rights.erased)
        catalogue = self.ranker.catalogue
        for one in added.applicants:
            if one in self.rights.erased or self.newcomers.known(one, catalogue) is None:
                self._soon(self._meet(one))
        if added.erased:
            self._soon(self._look_at_store())

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._meetings.add(task)
        task.add_done_callback(self._meetings.discard)

    async def _meet(self, applicant_id: str) -> None:
        with contextlib.suppress(Problem):  # the store is away, and a request will look again
            found = await self.newcomers.look(applicant_id, self.ranker.catalogue.layout)
            if found is not None and applicant_id not in self._erasing:  # erased before, and created again elsewhere
                self.rights.erased.discard(applicant_id)

    async def _look_for_run(self) -> None:
        async with self._changing:
            await self._take(self.ranker.catalogue)

    async def _look_at_store(self) -> None:
        async with self._changing:
            before, newcomers = self.ranker.catalogue, self.newcomers.ids
            try:
                catalogue = await self.read(lambda: Catalogue.load(self.store, before))
            except DynaqError as error:
                logger.error("the store cannot be read; its last snapshot is kept: %s", error)
                self._store_problem = str(error)
                return
            self._store_problem = None
            await self._take(catalogue)
            await self._drop_erased(before, catalogue, newcomers)
        self.newcomers.forget(self.ranker.catalogue)

    async def _drop_erased(self, before: Catalogue, now: Catalogue, newcomers: Sequence[str]) -> None:
        """Drop applicants whom another process or replica erased, and what this one has written of them since."""
        known = [*newcomers, *(before.applicant_ids if now is not before else ())]
        left = [one for one in known if one not in now]
        for one in await self.rights.erased_elsewhere(left):
            self._drop(one)

    async def _take(self, catalogue: Catalogue) -> None:
        """Switch to this catalogue, and to the newest run."""
        ranker = await self.read(lambda: self._watch.ranker(catalogue, self.ranker))
        if ranker is not self.ranker:
            self.ranker = ranker
            self.run_views.forget()  # their rankers hold the catalogue before
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

    async def compute(self, call: Callable[[], T]) -> T:
        """Call in a thread for what takes computing."""
        return await asyncio.get_running_loop().run_in_executor(self._ranking, call)

    async def read(self, call: Callable[[], T]) -> T:
        """Call in the thread that reads the store."""
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
