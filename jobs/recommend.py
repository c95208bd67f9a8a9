"""dynaq recommend: the best jobs of a run for one applicant."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from dynaq.ingest.embedding import encoder_for
from dynaq.runs.reading import open_run_store, read_runs
from dynaq.stores import Store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run_verb
from jobs.steps.titles import RankedJobs, titled
from jobs.terminal.console import console, print_json
from jobs.terminal.tables import recommendation_table
from recommend_service.catalogue import Catalogue
from recommend_service.config import PREFERENCE_WEIGHT
from recommend_service.slates import blend

SHORTLIST = 100  # jobs per applicant that a run folder keeps


def main(
    run: Annotated[str, typer.Option(help="run folder; of a comparison, its best trial is used")],
    applicant: Annotated[str, typer.Option(help="applicant id")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="length of the list")] = 10,
    preference: Annotated[
        str | None, typer.Option(help="a wish in your own words, by which the agent's best jobs are reordered")
    ] = None,
    store: Annotated[str | None, typer.Option(help="where the store is now, if not where the run found it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the best jobs for one applicant."""
    chosen = read_runs(run)[0]
    best = chosen.jobs_for(applicant, SHORTLIST if preference else k)
    with open_run_store(chosen, store) as opened:
        if preference:
            best = by_preference(best, applicant, preference, opened)[:k]
        rows = titled(best, opened)
    if as_json:
        items = [{"rank": rank, "job_id": job, "title": title, "q_value": q} for rank, title, job, q in rows]
        print_json({"applicant_id": applicant, "strategy": chosen.config["strategy"], "recommendations": items})
        return
    console.print(recommendation_table(rows))


def by_preference(best: RankedJobs, applicant_id: str, wish: str, store: Store) -> RankedJobs:
    """Reorder jobs by a wish, as the service does; jobs that left the store are dropped.

    Raises InputError when the store was embedded by an encoder that is in no package.
    """
    encoder = encoder_for(store)
    cache = TensorCache.copy_from_database(store, [applicant_id], job_ids=[job_id for job_id, _ in best])
    catalogue = Catalogue(cache, digest="")
    left = [(job_id, q) for job_id, q in best if job_id in catalogue.rows]
    rows = np.array([catalogue.rows[job_id] for job_id, _ in left])
    similar = catalogue.text_similarities(encoder.encode_queries([wish])[0], rows)
    scores = np.array([q for _, q in left], np.float32)
    return [left[i] for i in np.argsort(-blend(scores, similar, PREFERENCE_WEIGHT), kind="stable")]


if __name__ == "__main__":
    run_verb("recommend")
