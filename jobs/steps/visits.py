"""Simulated applicants look through the first jobs by cosine and act; what agents then know of jobs nobody was shown.

The applicants act on the relevance that came with the data, with errors: ACTS has the chance of each answer by grade.
What they do is stored as the events that a service would have stored. The measure is nDCG@10 over the jobs that an
applicant was not shown, so neither the agents nor the cosine are asked about an answer that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from cluster.block_actor import TrainingJob
from cluster.cache import put_cache
from cluster.trainer import CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.evaluation.intervals import Difference, paired_difference
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.evaluation.run_quality import K
from dynaq.feedback.events import WARM_START, Exposure, FeedbackEvent
from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.judging.sampled import draw
from dynaq.qrels import Qrels
from dynaq.runs.folder import RunFolder
from dynaq.runs.reading import Run, read_runs
from dynaq.stores import open_feedback
from dynaq.tensor_cache import TensorCache
from jobs.steps.feedback_answers import learn_from_events
from jobs.steps.judge_backend import NO_JUDGE, offline_ledger
from jobs.steps.prepare import Prepared, open_run, report_failures, run_config
from jobs.terminal.tables import interval_words, number
from recommend_service.simulation import Behaviour

VISITED = 30  # jobs that each applicant looks through: three pages of ten
# Grade -> chances of APPLY, SAVE, CLICK and IGNORE: about one answer in five is not what the grade suggests.
ACTS: Mapping[int, tuple[float, ...]] = {
    3: (0.75, 0.15, 0.05, 0.05),
    2: (0.30, 0.40, 0.15, 0.15),
    1: (0.05, 0.10, 0.35, 0.50),
    0: (0.01, 0.02, 0.07, 0.90),
}


@dataclass(frozen=True)
class Taught:
    """nDCG@10 over the jobs that applicants were not shown.

    Args:
        agents, cosine: means over the applicants who have a relevant job left there.
        difference: agents - cosine, paired.
    """

    agents: float
    cosine: float
    difference: Difference


def shown_jobs(cache: TensorCache, people: Sequence[str]) -> dict[str, list[str]]:
    """Applicant -> the VISITED jobs that are nearest by cosine."""
    return {one: _nearest(cache, one, VISITED) for one in people}


def _nearest(cache: TensorCache, applicant_id: str, k: int) -> list[str]:
    return [cache.job_ids[job] for job in cache.top_k(applicant_id, k)[0].tolist()]


def visit(store_uri: str, shown: Mapping[str, Sequence[str]], qrels: Qrels, behaviour: Behaviour) -> int:
    """Everyone looks through the jobs that they are shown; returns how many events they sent.

    Done again with the same lists, it adds nothing: the keys are the same.
    """
    now = datetime.now(UTC)
    lists: list[Exposure] = []
    events: list[FeedbackEvent] = []
    for one, jobs in shown.items():
        grades = qrels.grades(one)
        lists.append(Exposure(one, f"visit-{behaviour.seed}-{one}", now, tuple(jobs), (1.0,) * len(jobs), WARM_START))
        for job in jobs:
            chances = ACTS[int(grades.get(job, 0.0))]
            answer = draw(judgement_from_probabilities(one, job, chances, judge="visit"), behaviour.seed)
            if (event := behaviour.event(answer)) is not None:
                key = f"visit-{behaviour.seed}-{one}-{job}"
                events.append(FeedbackEvent(one, job, event, now, "simulated", key))
    with open_feedback(store_uri) as store:
        store.add_exposures(lists)
        store.add_feedback(events)
    return len(events)


def learn(prepared: Prepared, folder: RunFolder) -> Run:
    """Train the cohort's agents on its events alone, as `dynaq train --judge none --feedback` does. Ray is connected.

    Raises DynaqError when an agent could not be trained.
    """
    config = DynaQConfig()
    answers, summary = learn_from_events(folder, prepared, config)
    settings = {"strategy": "llm", **run_config(prepared, config, None, None), "feedback": summary}
    open_run(folder, settings | {"offline": False, "gold": None}, resume=False)
    nothing = offline_ledger(NO_JUDGE, "llm")
    job = TrainingJob(put_cache(prepared.cache), "llm", config, None, folder, offline=nothing, feedback=answers)
    report_failures(CohortTrainer(job, prepared.cohort, qrels=prepared.qrels).run().failures)
    (run,) = read_runs(folder.uri)
    return run


def taught(
    ranked: Mapping[str, Sequence[str]], cache: TensorCache, qrels: Qrels, shown: Mapping[str, Sequence[str]]
) -> Taught:
    """What agents and the cosine make of the jobs that were not shown.

    ranked: applicant -> the first VISITED + K jobs or more by their agent.
    """
    agents: list[float] = []
    cosine: list[float] = []
    for one, jobs in shown.items():
        seen = set(jobs)
        left = {job: grade for job, grade in qrels.grades(one).items() if job not in seen}
        for jobs_of, scores in ((ranked[one], agents), (_nearest(cache, one, VISITED + K), cosine)):
            scores.append(ndcg_at_k([job for job in jobs_of if job not in seen], left, K))
    return Taught(
        float(np.nanmean(agents)),
        float(np.nanmean(cosine)),
        paired_difference(agents, cosine),
    )


def taught_words(found: Taught, people: int, events: int) -> str:
    """What came of it, in two sentences."""
    means = f"nDCG@{K} there is {number(found.agents)}, by cosine {number(found.cosine)}"
    between = interval_words(found.difference.interval.low, found.difference.interval.high)
    difference = f"a difference of {number(found.difference.interval.mean)}" + (f" ({between})" if between else "")
    verdict = {
        "a": f"Agents that learned from it rank the jobs that nobody was shown better: {means}, {difference}.",
        "b": f"Agents that learned from it rank the jobs that nobody was shown worse: {means}, {difference}.",
        None: f"The data cannot tell whether it helps with the jobs that nobody was shown: {means}, {difference}.",
    }[found.difference.better]
    return (
        f"What people did: {people} other applicants, simulated from that relevance with errors, looked through their "
        f"first {VISITED} jobs by cosine and acted {events} times. {verdict}"
    )
