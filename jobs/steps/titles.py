"""Ranked jobs with their titles, as a list shows them."""

from __future__ import annotations

from dynaq.stores import Store

RankedJobs = list[tuple[str, float]]  # (job id, Q-value), best first


def titled(best: RankedJobs, store: Store) -> list[tuple[int, str, str, float]]:
    """(rank, title, job id, Q-value); a job that left the store keeps its id as its title."""
    titles = {job.id: job.title for job in store.records("job", [job_id for job_id, _ in best])}
    return [(rank, titles.get(job_id, job_id), job_id, q) for rank, (job_id, q) in enumerate(best, start=1)]
