"""What each applicant has done with which job, as far as their list depends on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from dynaq.feedback.events import Event, FeedbackEvent

SETTLED: tuple[Event, ...] = ("apply", "hire")
HIDDEN: tuple[Event, ...] = ("apply", "hire", "ignore")


class Marks:
    """The event that counts per pair, in memory: about 200 bytes a pair.

    An application is never undone by a later click. Of saving and declining the later counts. A look counts where
    there is nothing else. Who applied, was hired or declined does not see the job again; what was saved stays.
    """

    def __init__(self) -> None:
        self._marks: dict[str, dict[str, Event]] = {}

    @classmethod
    def of(cls, feedback: pa.Table) -> Marks:
        """From a store's events, oldest first."""
        marks = cls()
        for batch in feedback.select(["applicant_id", "job_id", "event"]).to_batches():
            for applicant_id, job_id, event in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                marks._add(applicant_id, job_id, event)
        return marks

    def add(self, events: Iterable[FeedbackEvent]) -> None:
        for event in events:
            self._add(event.applicant_id, event.job_id, event.event)

    def _add(self, applicant_id: str, job_id: str, event: Event) -> None:
        own = self._marks.setdefault(applicant_id, {})
        before = own.get(job_id)
        if before in SETTLED and event not in SETTLED:
            return
        if event == "click" and before is not None:
            return
        own[job_id] = event

    def of_applicant(self, applicant_id: str) -> Mapping[str, Event]:
        """Job -> event."""
        return self._marks.get(applicant_id, {})
