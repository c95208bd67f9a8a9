"""The ranking of the catalogue for one applicant: by their agent, or by similarity if they have none.

Only the top of recently requested rankings is kept, and an agent's row of Q is read from the run folder on request. So
memory is bounded by the number of cached rankings, whatever the size of the catalogue.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from dynaq.errors import DynaqError, InputError
from dynaq.feedback.events import WARM_START
from dynaq.runs.q_table import Columns, ServedRun
from dynaq.stores import FloatArray
from recommend_service.catalogue import ApplicantVectors, Catalogue, Rows
from recommend_service.facets import Mask

logger = logging.getLogger(__name__)
DEPTH = 1000  # jobs kept per ranking
NEIGHBOURS = 8  # trained jobs from which the Q of a job added after training is estimated


@dataclass(frozen=True)
class Ranking:
    """The top of the catalogue for one applicant, best first.

    Args:
        rows: rows of the catalogue.
        scores: Q, or the cosine if there is no agent.
        estimated: whether the job was added after training, so that its Q is estimated from the most similar jobs.
        policy: the run's id, or WARM_START.
        whole: whether the ranking has all jobs of the catalogue, or all candidates of the agent.
        worth: what the jobs are ordered by where the applicant's history counts (`recommend_service.memory`); None
            where it is the score.
    """

    rows: Rows
    scores: FloatArray
    estimated: npt.NDArray[np.bool_]
    policy: str
    whole: bool
    worth: FloatArray | None = None

    def only(self, places: Rows) -> Ranking:
        """The jobs at some places of this ranking, in the order of `places`."""
        worth = None if self.worth is None else self.worth[places]
        return Ranking(self.rows[places], self.scores[places], self.estimated[places], self.policy, False, worth)


class Ranker:
    """Ranks one catalogue by one run. A new run or catalogue needs a new ranker, so that the cache is never stale.

    Raises InputError for a run that shares no job with the catalogue.
    """

    def __init__(self, catalogue: Catalogue, run: ServedRun | None, cached: int) -> None:
        self.catalogue, self.run = catalogue, run
        self.judge = run.judge if run is not None else None
        self._cache: LRUCache[str, Ranking] = LRUCache(cached)
        self._lock = threading.Lock()
        self.hits = self.misses = self.unreadable = 0
        if run is not None:
            self._map(run)

    def _map(self, run: ServedRun) -> None:
        """Find each catalogue job's column in the run, and for jobs without one the most similar jobs that have one."""
        self._columns = np.fromiter((run.columns.get(j, -1) for j in self.catalogue.job_ids), np.int64)
        self._new = np.flatnonzero(self._columns < 0)
        known = np.flatnonzero(self._columns >= 0)
        self._row_of = np.full(len(run.job_ids), -1, np.int64)  # column -> row of the catalogue
        self._row_of[self._columns[known]] = known
        if not len(known):
            raise InputError(f"run {run.run_id} knows none of the catalogue's jobs; was it trained on another store?")
        if len(self._new):
            self._similar, self._weights = self.catalogue.nearest(self._new, known, NEIGHBOURS)

    @property
    def cached(self) -> int:
        """Number of rankings in memory."""
        return len(self._cache)

    def has_agent(self, applicant_id: str) -> bool:
        """Whether the run has an agent for the applicant."""
        return self.run is not None and applicant_id in self.run.places

    def peek(self, applicant_id: str, depth: int) -> Ranking | None:
        """The ranking if it is in memory and has at least `depth` jobs."""
        with self._lock:
            ranking = self._cache.get(applicant_id)
            if ranking is None or not (ranking.whole or len(ranking.rows) >= depth):
                return None
            self.hits += 1
            return ranking

    def forget(self, applicant_id: str) -> None:
        """Drop an applicant's ranking."""
        with self._lock:
            self._cache.pop(applicant_id, None)

    def rank(self, applicant: ApplicantVectors, depth: int, among: Mask | None = None) -> Ranking:
        """A ranking of at least `depth` jobs, read from disk or computed. Takes milliseconds, tens without an agent.

        among: of which jobs, `[n_jobs]`; such a ranking is not kept.
        """
        found, policy = self._q_values(applicant.id), WARM_START
        if found is None:
            scores = self.catalogue.similarities(applicant)
            known = np.arange(len(scores))
        else:
            assert self.run is not None
            known, scores = self._known(*found)
            policy = self.run.run_id
        if among is not None:
            kept = among[known]
            known, scores = known[kept], scores[kept]
        best = _top(scores, max(DEPTH, depth))
        rows = known[best]
        estimated = np.zeros(len(rows), bool) if found is None else self._columns[rows] < 0
        ranking = Ranking(rows, scores[best], estimated, policy, len(rows) == len(scores))
        if among is None:
            with self._lock:
                self.misses += 1
                self._cache[applicant.id] = ranking
        return ranking

    def _q_values(self, applicant_id: str) -> tuple[Columns, FloatArray] | None:
        if self.run is None:
            return None
        try:
            return self.run.q_values(applicant_id)
        except DynaqError as error:  # the run folder was removed: a warm-start list is better than none
            self.unreadable += 1
            logger.error("an agent cannot be read: %s", error)
            return None

    def _known(self, columns: Columns, q: FloatArray) -> tuple[Rows, FloatArray]:
        """The rows of the catalogue that an agent knows, or whose Q can be estimated, rising, and their Q."""
        assert self.run is not None
        if len(columns) == len(self.run.job_ids):
            values: FloatArray = q[self._columns]  # new jobs have column -1, and their values are replaced below
            if len(self._new):
                values[self._new] = (values[self._similar] * self._weights).sum(axis=1)
            return np.arange(len(values)), values
        rows, scores = self._row_of[columns], q
        if len(self._new):
            # A new job is estimated if at least half of what it resembles are candidates of this agent.
            similar = self._columns[self._similar]
            at = np.searchsorted(columns, similar).clip(max=len(columns) - 1)
            weights = np.where(columns[at] == similar, self._weights, 0.0)
            total = weights.sum(axis=1)
            enough = total >= 0.5
            mean = (q[at] * weights).sum(axis=1)[enough] / total[enough]
            rows, scores = np.append(rows, self._new[enough]), np.append(scores, mean.astype(np.float32))
        order = np.argsort(rows)
        order = order[rows[order] >= 0]  # of jobs that are still there
        return rows[order], scores[order]


def _top(scores: FloatArray, count: int) -> Rows:
    """Rows of the highest scores, best first; ties in row order."""
    if count < len(scores):
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        rows = np.flatnonzero(scores >= threshold)
    else:
        rows = np.arange(len(scores))
    best: Rows = rows[np.lexsort((rows, -scores[rows]))][:count]
    return best
