"""Watches for a new run: checks a run completely before it takes over, and refuses a broken one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dynaq.errors import DynaqError, InputError
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import ServedRun, served_run_id
from recommend_service.applicant_ranking import Ranker
from recommend_service.catalogue import Catalogue
from recommend_service.config import RecommendConfig

logger = logging.getLogger(__name__)
CURRENT = "current.json"  # of a serving folder, written by `dynaq promote`
MAX_PAUSE = 60.0  # longest time in seconds until a refused run is checked again, since a check reads all of it


class RunWatch:
    """Provides the ranker of the newest valid run over a catalogue."""

    def __init__(self, config: RecommendConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._source: tuple[str, str] | None = None  # uri and id of the run in use
        self._pause, self._not_before = config.poll_seconds, 0.0
        self.problem: str | None = None
        self.refused = 0

    def ranker(self, catalogue: Catalogue, current: Ranker | None) -> Ranker:
        """The ranker to use now: `current` itself while neither the run nor the catalogue has changed.

        If a new run cannot be used, the run in use is kept and `problem` says why.
        """
        run = current.run if current is not None else None
        found = self._newer()
        if found is not None:
            run, source = found
            try:
                ranker = Ranker(catalogue, run, self._config.cached_agents)
            except InputError as error:
                self._refuse(error)
                run = current.run if current is not None else None
            else:
                self._source, self.problem, self._pause = source, None, self._config.poll_seconds
                logger.info("run %s takes over", ranker.run and ranker.run.run_id)
                return ranker
        if current is not None and current.catalogue is catalogue:
            return current
        try:
            return Ranker(catalogue, run, self._config.cached_agents)
        except InputError as error:  # the new catalogue has no job of the run
            self._refuse(error)
            return Ranker(catalogue, None, self._config.cached_agents)

    def _newer(self) -> tuple[ServedRun, tuple[str, str]] | None:
        """A valid run other than the one in use, with its source."""
        if self._clock() < self._not_before:
            return None
        try:
            uri = self._wanted()
            if uri is None:
                return None
            source = (uri, served_run_id(uri))
            if source == self._source:
                self.problem = None
                return None
            return ServedRun.open(uri), source
        except DynaqError as error:
            self._refuse(error)
        except Exception as error:  # whatever fails on an unknown file system, the run in use is kept
            logger.exception("looking for a new run")
            self._refuse(DynaqError(f"{type(error).__name__}: {error}"))
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

    def _refuse(self, error: DynaqError) -> None:
        text = " ".join(str(error).split())
        if text != self.problem:
            logger.error("a run was refused; the one in use is kept: %s", text)
            self.refused += 1
            self._pause = self._config.poll_seconds
        self.problem = text
        self._not_before = self._clock() + self._pause
        self._pause = min(MAX_PAUSE, 2 * self._pause)
