"""A trial of `rllib-dqn`, with the same budget, judge, curves and run folder as a trial of our own agents."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.block_actor import RECOMMENDATION_SCHEMA, RECOMMENDATIONS_KEPT, TrainingJob
from cluster.broker import BrokerClient
from cluster.rllib.dqn import RllibDqn, RllibDqnConfig
from cluster.trainer import CohortProgress, CohortResult
from dynaq.agent.round_metrics import RoundMetrics, count_label
from dynaq.errors import DynaqError
from dynaq.evaluation.ranking import ranking_metrics
from dynaq.judging.judgement import Judgement
from dynaq.means import mean_known
from dynaq.qrels import Qrels
from dynaq.runs.folder import CONFIG, METRICS, RECOMMENDATIONS

Rankings = list[list[tuple[str, float]]]  # per applicant (job, Q), best first


def train_rllib_dqn(
    job: TrainingJob, cohort: Sequence[str], qrels: Qrels | None, on_progress: Callable[[CohortProgress], None]
) -> CohortResult:
    """Train on the whole cohort and write metrics and recommendations. If the judge fails, every applicant fails."""
    if job.broker is None:
        raise DynaqError("rllib-dqn needs a judge, and none was given")
    began = time.monotonic()
    settings = RllibDqnConfig()
    job.folder.write_yaml(CONFIG, job.folder.read_yaml(CONFIG) | {"rllib_dqn": settings.model_dump(mode="json")})
    source = BrokerClient(job.broker, payer=job.folder.uri)
    learner = RllibDqn(job.cache.attach(), cohort, source, settings, job.config.budget, job.config.seed)
    rows: list[dict[str, Any]] = []
    ranked: Rankings = []
    round_ = 0
    try:
        while learner.spent < learner.budget:
            epsilon, since, round_ = learner.epsilon, learner.spent, round_ + 1
            losses = learner.learn_until(since + job.config.slate_size)
            ranked = _ranked(learner)
            new = _round(learner, ranked, qrels, round_, since, epsilon, mean_known(losses))
            rows += new
            on_progress(_progress(learner, new, round_, time.monotonic() - began))
    except DynaqError as error:
        return CohortResult(job.folder, dict.fromkeys(cohort, str(error)), time.monotonic() - began)
    finally:
        learner.close()
    listed = [
        {"applicant_id": name, "rank": rank, "job_id": job_id, "q_value": q}
        for name, own in zip(learner.applicants, ranked, strict=True)
        for rank, (job_id, q) in enumerate(own, start=1)
    ]
    job.folder.write_table(METRICS, pa.Table.from_pylist(rows))
    job.folder.write_table(RECOMMENDATIONS, pa.Table.from_pylist(listed, schema=RECOMMENDATION_SCHEMA))
    return CohortResult(job.folder, {}, time.monotonic() - began)


def _ranked(learner: RllibDqn) -> Rankings:
    ids = learner.cache.job_ids
    values = learner.q_values()
    order = np.argsort(-values, axis=1, kind="stable")[:, :RECOMMENDATIONS_KEPT]
    return [[(ids[j], float(q[j])) for j in own] for q, own in zip(values, order, strict=True)]


def _round(
    learner: RllibDqn, ranked: Rankings, qrels: Qrels | None, round_: int, since: int, epsilon: float, loss: float
) -> list[dict[str, Any]]:
    """A row per applicant with the metrics of its steps from `since` on."""
    rows = []
    for name, own in zip(learner.applicants, ranked, strict=True):
        answers = learner.answers(name, 0)
        new = learner.answers(name, since)
        reward = mean_known([judgement.reward for judgement in new])
        metrics = RoundMetrics(
            applicant_id=name,
            round=round_,
            judgements_used=len(answers),
            mean_reward=reward,
            cumulative_reward=_total(answers),
            epsilon=epsilon,
            w_cosine=0.0,
            q_loss=loss,
            model_loss=math.nan,
            planning_loss=math.nan,
            abstained=learner.spent - since - len(new),
            judge_reward=reward,
            applied=count_label(new, "APPLY"),
            saved=count_label(new, "SAVE"),
            clicked=count_label(new, "CLICK"),
            ignored=count_label(new, "IGNORE"),
        )
        rows.append(asdict(metrics))
        if qrels:
            rows[-1] |= ranking_metrics([job_id for job_id, _ in own], qrels.grades(name))
    return rows


def _total(judgements: Sequence[Judgement]) -> float:
    return sum(judgement.reward for judgement in judgements if judgement.reward is not None)


def _progress(learner: RllibDqn, rows: list[dict[str, Any]], round_: int, seconds: float) -> CohortProgress:
    applicants = len(learner.applicants)
    done = learner.spent >= learner.budget
    return CohortProgress(
        applicants=applicants,
        done=applicants if done else 0,
        round=round_,
        judgements=sum(row["judgements_used"] for row in rows),
        budget=learner.budget * applicants,
        reward=mean_known([row["mean_reward"] for row in rows]),
        ndcg=mean_known([row.get("ndcg") for row in rows]),
        seconds=seconds,
        mean_round=float(round_),
    )
