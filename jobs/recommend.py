"""dynaq recommend: the best jobs of a run for one applicant."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dynaq.stores import Store
from jobs.cli import run_verb
from jobs.console import console
from jobs.runs import Run, open_run_store, read_runs
from jobs.tables import recommendation_table


def main(
    run: Annotated[str, typer.Option(help="run folder; of a comparison, its best trial is used")],
    applicant: Annotated[str, typer.Option(help="applicant id")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="length of the list")] = 10,
    store: Annotated[str | None, typer.Option(help="where the store is now, if not where the run found it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the best jobs for one applicant."""
    chosen = read_runs(run)[0]
    chosen.jobs_for(applicant, k)
    with open_run_store(chosen, store) as opened:
        rows = titled(chosen, applicant, k, opened)
    if as_json:
        items = [{"rank": rank, "job_id": job, "title": title, "q_value": q} for rank, title, job, q in rows]
        print(json.dumps({"applicant_id": applicant, "strategy": chosen.config["strategy"], "recommendations": items}))
        return
    console.print(recommendation_table(rows))


def titled(run: Run, applicant_id: str, k: int, store: Store) -> list[tuple[int, str, str, float]]:
    """(rank, title, job id, Q-value) of the first k; a job that left the store keeps its id as its title."""
    best = run.jobs_for(applicant_id, k)
    titles = {job.id: job.title for job in store.jobs([job_id for job_id, _ in best])}
    return [(rank, titles.get(job_id, job_id), job_id, q) for rank, (job_id, q) in enumerate(best, start=1)]


if __name__ == "__main__":
    run_verb("recommend")
