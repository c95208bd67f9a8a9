"""What applicants did before, from their own events, for a judge with memory."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.feedback.answers import settle
from dynaq.judging.history import Did, History, PastEvent, how_long_ago


def histories(
    events: pa.Table, applicants: Collection[str], jobs: Collection[str], size: int, until: datetime
) -> dict[str, History]:
    """Applicant -> the newest `size` events of theirs, newest first; those without any are left out.

    Of each pair the event that stands counts, at its time (`dynaq.feedback.answers`), so that what was taken back is
    not told. Events of other applicants and on jobs outside the catalogue, whose titles nobody knows, are not told.

    Args:
        events: with the columns of `dynaq.feedback.events.FEEDBACK_SCHEMA`, in any order.
        applicants: of the cohort.
        jobs: of the catalogue.
        size: events of a history.
        until: only events before it; also the time from which the coarse times count.
    """
    mine = pc.is_in(events.column("applicant_id"), pa.array(list(applicants), pa.string()))
    known = pc.is_in(events.column("job_id"), pa.array(list(jobs), pa.string()))
    before = pc.less(events.column("at"), pa.scalar(until, events.schema.field("at").type))
    done: dict[str, list[tuple[datetime, str, PastEvent]]] = {}
    for (applicant_id, job_id), (event, at) in settle(events.filter(pc.and_(pc.and_(mine, known), before))).items():
        ago = how_long_ago((until - at) / timedelta(days=1))
        one = PastEvent(event=cast(Did, event), job_id=job_id, ago=ago)  # an undo never stands
        done.setdefault(applicant_id, []).append((at, job_id, one))
    return {
        applicant_id: tuple(event for *_, event in sorted(own, key=lambda one: one[:2], reverse=True)[:size])
        for applicant_id, own in done.items()
    }
