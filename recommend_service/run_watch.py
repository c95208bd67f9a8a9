"""Watches for a new run: checks a run completely before it takes over, and refuses a broken one.

Replicas of one service swap runs on all or on none. Each checks the wanted run and keeps it ready while it serves the
one before. Once all that are there are ready for the same run, they have agreed on it, and each takes it over with its
next look. While one of them refuses it, none takes it over. A replica that starts serves what the others serve.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from dynaq.errors import DynaqError, InputError
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import ServedRun, served_run_id
from dynaq.stores import FeedbackStore, ReplicaGroup, RunSource
from recommend_service.applicant_ranking import Ranker
from recommend_service.catalogue import Catalogue
from recommend_service.config import RecommendConfig

logger = logging.getLogger(__name__)
CURRENT = "current.json"  # of a serving folder, written by `dynaq promote`
MAX_PAUSE = 60.0  # longest time in seconds until a refused run is checked again, since a check reads all of it
LEASE_SECONDS = 15.0  # after which the others go on without a replica of which they hear nothing
BEHIND_SECONDS = 60.0  # after which a replica that cannot serve the others' run is replaced
START_SECONDS = 60.0  # longest that a replica waits at its start for the others to be ready


def group_of(config: RecommendConfig, feedback: FeedbackStore) -> ReplicaGroup | None:
    """This process's part in the group of all replicas that take their run from one place; None for a single one."""
    lease = max(LEASE_SECONDS, 3 * config.poll_seconds)
    return feedback.group(str(config.serving or config.run), uuid.uuid4().hex, lease)


class RunWatch:
    """Provides the ranker of the newest valid run over a catalogue.

    group: the replicas that swap runs together; None for a single one.
    """

    def __init__(
        self,
        config: RecommendConfig,
        group: ReplicaGroup | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._group, self._clock = config, group, clock
        self._source: RunSource | None = None  # of the run in use
        self._ready: tuple[RunSource, Ranker] | None = None  # checked, and not yet agreed on
        self._serving: RunSource | None = None  # what the group has agreed on
        self._others, self._in_step = 0, clock()
        self._pause, self._not_before = config.poll_seconds, 0.0
        self._refusal: str | None = None
        self._elsewhere: str | None = None
        self.refused = 0

    @property
    def problem(self) -> str | None:
        """Why a newer run is not used, None if none is refused."""
        return self._refusal or self._elsewhere

    @property
    def behind(self) -> bool:
        """Whether other replicas serve a run that this one does not have."""
        return self._others > 0 and self._serving is not None and self._serving != self._source

    def check_in_step(self) -> None:
        """Raises DynaqError if this replica has been behind for too long."""
        if not self.behind:
            self._in_step = self._clock()
        if self._clock() - self._in_step > BEHIND_SECONDS:
            raise self._left_behind()

    def _left_behind(self) -> DynaqError:
        return DynaqError(f"the other replicas serve run {self._serving}, which cannot be used here: {self.problem}")

    def first(self, catalogue: Catalogue) -> Ranker:
        """The ranker to start with. Raises DynaqError if the other replicas serve a run that cannot be used here."""
        if self._group is not None:
            self._serving = self._group.join()
        deadline = time.monotonic() + START_SECONDS
        while True:
            ranker = self.ranker(catalogue, None)
            waits = self.behind or (self._ready is not None and ranker.run is None)
            if not waits or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if self.behind:
            raise self._left_behind()
        return ranker

    def ranker(self, catalogue: Catalogue, current: Ranker | None) -> Ranker:
        """The ranker to use now: `current` itself while neither the run nor the catalogue has changed.

        If a new run cannot be used, the run in use is kept and `problem` says why.
        """
        run = current.run if current is not None else None
        self._check_wanted(catalogue)
        serving = self._agreed()
        if serving is not None and serving != self._source:
            found = self._checked(serving, catalogue)
            if found is not None:
                self._source, self._ready = serving, None
                self._accept()
                logger.info("run %s takes over", serving.run_id)
                return found
        if current is not None and current.catalogue is catalogue:
            return current
        try:
            return Ranker(catalogue, run, self._config.cached_agents)
        except InputError as error:  # the new catalogue has no job of the run
            self._refuse(error)
            return Ranker(catalogue, None, self._config.cached_agents)

    def leave(self) -> None:
        """Tell the other replicas that this one ends."""
        if self._group is not None:
            self._group.leave()

    def _agreed(self) -> RunSource | None:
        """The run that all replicas serve from now on."""
        ready = self._ready[0] if self._ready is not None else self._source
        if self._group is None:
            return ready
        try:
            agreement = self._group.agree(ready, self._refusal)
        except DynaqError as error:
            logger.error("the run that all replicas serve is not known while the store is away: %s", error)
            return self._source
        self._serving, self._others = agreement.serving, agreement.others
        self._elsewhere = next((f"another replica: {text}" for text in agreement.problems), None)
        return agreement.serving

    def _check_wanted(self, catalogue: Catalogue) -> None:
        """Have the wanted run ready, if it is another one than that in use."""
        if self._clock() < self._not_before:
            return
        try:
            uri = self._wanted()
            source = None if uri is None else RunSource(uri, served_run_id(uri))
        except Exception as error:
            self._refuse(_expected(error))
            return
        if source is None or source == self._source:
            self._ready = None
            self._accept()
        elif self._ready is None or self._ready[0] != source:
            self._ready = None
            found = self._checked(source, catalogue)
            if found is not None:
                self._ready = source, found
                self._accept()

    def _checked(self, source: RunSource, catalogue: Catalogue) -> Ranker | None:
        """A ranker by the run of a source if there can be one, else None, and `problem` says why."""
        known = self._ready[1] if self._ready is not None and self._ready[0] == source else None
        if known is not None and known.catalogue is catalogue:
            return known
        try:
            run = known.run if known is not None else ServedRun.open(source.uri)
            if run is not None and run.run_id != source.run_id:
                raise InputError(f"run folder {source.uri!r} holds run {run.run_id}, no longer {source.run_id}")
            return Ranker(catalogue, run, self._config.cached_agents)
        except Exception as error:
            self._refuse(_expected(error))
            return None

    def _wanted(self) -> str | None:
        """The URI of the run to serve; None while nothing was promoted."""
        if self._config.run is not None:
            return self._config.run
        assert self._config.serving is not None
        folder = RunFolder.at(self._config.serving)
        if not folder.exists(CURRENT):
            return None
        try:
            return str(folder.read_json(CURRENT)["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{CURRENT} in {folder.uri!r} cannot be read ({error}); promote the run again") from error

    def _accept(self) -> None:
        self._refusal, self._pause = None, self._config.poll_seconds

    def _refuse(self, error: DynaqError) -> None:
        text = " ".join(str(error).split())
        if text != self._refusal:
            logger.error("a run was refused; the one in use is kept: %s", text)
            self.refused += 1
            self._pause = self._config.poll_seconds
        self._refusal = text
        self._not_before = self._clock() + self._pause
        self._pause = min(MAX_PAUSE, 2 * self._pause)


def _expected(error: Exception) -> DynaqError:
    if isinstance(error, DynaqError):
        return error
    # Whatever fails on an unknown file system, the run in use is kept.
    logger.error("looking for a new run", exc_info=error)
    return DynaqError(f"{type(error).__name__}: {error}")
