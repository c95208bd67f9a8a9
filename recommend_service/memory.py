"""The applicant's own history in their list: a kind of job that they have just seen counts less for a while.

How people change (what repetition costs, how fast interest drifts) is learned from everybody's events up to the start
of the day: when the service starts, when it takes a run or a catalogue over, and once a day. One applicant's history is
their own standing events, which count at once. Between two events and within a day it does not change, so that a list
stays the same. A job that was shown and not acted on does not count: perhaps nobody looked at it.

What is learned from, and what is ranked anew, is bounded whatever the size of store and catalogue.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynaq.agent.pair_features import job_embedding
from dynaq.errors import InputError
from dynaq.feedback.answers import EVENT_LABELS
from dynaq.feedback.events import AT, WARM_START, Event
from dynaq.judging.judgement import LABEL_VALUES
from dynaq.sequential.history import Change, Seen, remembered
from dynaq.sequential.logged import change_in
from recommend_service.applicant_ranking import Ranker, Ranking
from recommend_service.catalogue import Catalogue, Rows

logger = logging.getLogger(__name__)
LEARNED_EVENTS = 20_000  # newest events that are learned from
LEARNED_JOBS, LEARNED_PEOPLE = 1000, 300  # most jobs and people of them: tables are [jobs, jobs] and [people, jobs]
OWN_EVENTS = 100  # newest events of one person
DAY = timedelta(days=1)


class Memory:
    """What is known of how people change, and rankings by it. Call `learn` and `apply` in a thread."""

    def __init__(self) -> None:
        self._change = Change()
        self._learned: tuple[datetime, Ranker] | None = None

    def due(self, ranker: Ranker) -> bool:
        """Whether there is a new day, run or catalogue since the last `learn`."""
        return self._learned is None or self._learned[0] != _today() or self._learned[1] is not ranker

    def learn(self, events: pa.Table, ranker: Ranker) -> None:
        """Learn from a store's events up to the start of the day. events: with the columns of FEEDBACK_SCHEMA."""
        today, catalogue = _today(), ranker.catalogue
        kept, jobs, applicants = _newest(events, catalogue, today)
        change = Change()
        if kept.num_rows:
            try:
                change = change_in(kept, catalogue.part(jobs, applicants))
            except InputError:  # all events were taken back
                logger.debug("no event stands to learn from")
        if change != self._change:
            logger.info("memory: %s", change)
        self._change, self._learned = change, (today, ranker)

    def apply(
        self, ranking: Ranking, catalogue: Catalogue, said: Mapping[str, tuple[Event, datetime]], depth: int
    ) -> Ranking:
        """The ranking with its first `depth` jobs ordered by what they are worth after what the applicant has seen.

        The ranking itself where the events show no change, or the applicant has done nothing. said: job -> standing
        event and its time.
        """
        change, today = self._change, _today()
        done = sorted((at, catalogue.rows[job], event) for job, (event, at) in said.items() if job in catalogue.rows)
        if not change.shown or not done:
            return ranking
        done = done[-OWN_EVENTS:]
        head = ranking.rows[:depth]
        rows = np.concatenate([np.array([row for _, row, _ in done], np.int64), head])
        embedding = job_embedding(catalogue.part(rows)).numpy()
        # An agent's Q differ by what rewards differ; of the warm start's cosines the events say what they are worth.
        unit = change.reward_per_cosine if ranking.policy == WARM_START else 1.0
        worth = np.array(ranking.scores, np.float64) * unit
        worth[: len(head)] = remembered(
            change,
            worth[: len(head)],
            embedding[len(done) :],
            [Seen(LABEL_VALUES[EVENT_LABELS[event]], max(0.0, (today - at) / DAY)) for at, _, event in done],
            embedding[: len(done)],
        )
        order = np.arange(len(worth))
        order[: len(head)] = np.argsort(-worth[: len(head)], kind="stable")
        return Ranking(
            ranking.rows[order],
            ranking.scores[order],
            ranking.estimated[order],
            ranking.policy,
            ranking.whole,
            worth[order].astype(np.float32),
        )


def _today() -> datetime:
    """The start of the day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _newest(events: pa.Table, catalogue: Catalogue, until: datetime) -> tuple[pa.Table, Rows, list[str]]:
    """The newest events before `until` within the bounds, the rows of their jobs, and their applicants."""
    past = events.filter(pc.less(events.column("at"), pa.scalar(until, AT)))
    past = past.sort_by([("at", "descending"), ("key", "descending")])[:LEARNED_EVENTS]
    jobs: dict[str, int] = {}
    people: Counter[str] = Counter()
    kept = []
    pairs = zip(past.column("applicant_id").to_pylist(), past.column("job_id").to_pylist(), strict=True)
    for place, (applicant_id, job_id) in enumerate(pairs):
        if job_id not in catalogue.rows or applicant_id not in catalogue:
            continue
        full = job_id not in jobs and len(jobs) == LEARNED_JOBS
        full |= applicant_id not in people and len(people) == LEARNED_PEOPLE
        if full or people[applicant_id] == OWN_EVENTS:
            continue
        jobs[job_id] = catalogue.rows[job_id]
        people[applicant_id] += 1
        kept.append(place)
    return past.take(pa.array(kept, pa.int64())), np.array(list(jobs.values()), np.int64), list(people)
