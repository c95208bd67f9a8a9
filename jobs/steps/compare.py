"""A comparison: strategies (and settings) over seeds as trials that share one cache, one judge and one ledger.

Training spends its budget where it learns most, so most of a final top 10 was never judged. Evaluating only judged
pairs would favour a strategy that spent its budget on its own favourites. So the judge is asked about every trial's
top 10 at the end; these judgements are counted separately, and no agent learns from them.

The folder holds one run folder per trial (`OUT/<trial>/`, as `dynaq train` writes them) and these files:

    config.yaml        what is compared: `trials` (names), `best` (a trial), `tune` (strategies, seeds, space, …)
    trials.parquet     a row per trial: trial, strategy, setting (JSON of the settings that differ, "{}" for none),
                       seed, status (done | stopped | failed), error, seconds, judgements_used, judgements_paid,
                       judgements_per_second, and the means of the columns of applicants.parquet
    applicants.parquet a row per trial and applicant, final values: trial, strategy, setting, seed, applicant_id,
                       judgements_used, ndcg@10, recall@10, mrr, mean_reward@10, apply_rate@10, save_rate@10,
                       click_rate@10, ignore_rate@10, regret@10, judged@10, cumulative_reward
    curves.parquet     a row per trial, applicant and round: trial, strategy, setting, seed, applicant_id, round,
                       judgements_used, ndcg, recall, mrr (of the ranking after this round), mean_reward (judge's, of
                       this round's pairs), cumulative_reward, cumulative_regret (both the judge's), apply_rate,
                       save_rate, click_rate, ignore_rate (of all pairs so far), q_loss, model_loss, planning_loss,
                       epsilon, w_cosine, trust
    bills.json         trial -> judgements paid, updated while trials run, so that an interruption loses almost none
    costs.json         what the calls to an endpoint cost (`reward_service.costs.Costs`), of all sessions
    comparison.json    the statistics:

    {"k": 10, "confidence": 0.95, "budget": 50, "applicants": 32, "seeds": [0, 1, 2], "jobs": 856,
     "primary": "mean_reward@10",              what agents are trained for; decides `best` and the first verdicts
     "judgements_used": …, "judgements_paid": …, "judged_for_the_table": …, "notes": ["…"],
     "strategies": [
       {"strategy": "llm", "setting": {}, "trials": ["llm-seed0", …], "judgements_used": …, "judgements_paid": …,
        "judgements_per_applicant": 50.0, "judgements_per_second": …, "seconds": …,
        "metrics": {"ndcg@10": {"mean": …, "low": …, "high": …}, …},       every metric of applicants.parquet
        "cold_start": {"judgements": 10, "metrics": {"ndcg": {"mean", "low", "high"}, "mean_reward": …}},
        "steps_to_threshold": {"metric": "ndcg", "threshold": 0.9, "judgements": 25, "low": 20, "high": 30},
        "corrected_reward": {"mean", "low", "high", "judged", "known", "weight"},   mean_reward@10 corrected by pairs
                                               whose truth is known (`dynaq.evaluation.true_rewards`); null below 10
        "curves": {"ndcg": {"judgements": […], "mean": […], "low": […], "high": […]}, …}}],
     "comparisons": 24,                        length of `pairs`, for which their intervals are corrected
     "pairs": [
       {"a": "llm", "b": "cosine", "metric": "ndcg@10", "phase": "final" | "cold_start",
        "difference": …, "low": …, "high": …, "better": "llm" | "cosine" | null, "verdict": "a sentence"}]}

Unknown values are null there and in the tables; a threshold that is not reached within the budget is null too.
Intervals are over applicants and seeds (`dynaq.evaluation.intervals`); those of `pairs` hold simultaneously, with
Bonferroni's correction. `judgements_used` counts the pairs that agents spent of their budgets, `judgements_paid` those
that the judge was asked for because the ledger lacked them: the trial that asks first pays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.tune import Callback

from cluster.block_actor import TrainingJob
from cluster.broker import BrokerClient, JudgeBackend, start_broker
from cluster.cache import put_cache
from cluster.trainer import ActorSize
from cluster.tuning.plan import Plan
from cluster.tuning.trials import run_trials
from dynaq.agent.config import DynaQConfig
from dynaq.evaluation.comparison import COMPARISON, statistics
from dynaq.evaluation.run_quality import K, Known
from dynaq.evaluation.trial_rows import CURVE_SCHEMA, FINAL_SCHEMA, FINALS, as_table, curve_rows, final_rows
from dynaq.evaluation.true_rewards import corrected_reward
from dynaq.judging.judgement import Slate
from dynaq.means import mean_known
from dynaq.pretraining.prior import Pretrained
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.runs.judgements import judged_pairs
from dynaq.runs.reading import Run, open_run_store, read_runs
from dynaq.runs.trials import TrialResult, setting_json
from jobs.steps.cohort import known_truth
from jobs.steps.judge_backend import keep_gold, read_gold
from jobs.steps.prepare import Prepared, open_run, run_config
from jobs.terminal.comparison_table import Comparison
from jobs.terminal.console import LiveTable
from jobs.terminal.tables import number

TRIALS_FILE, APPLICANTS_FILE, CURVES_FILE = "trials.parquet", "applicants.parquet", "curves.parquet"


def compare(
    plan: Plan,
    prepared: Prepared,
    config: DynaQConfig,
    folder: RunFolder,
    judge: str,
    backend: JudgeBackend,
    *,
    size: ActorSize,
    pretrained: Pretrained | None = None,
    gold: str | None = None,
    broker: Any = None,
    concurrent: int | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    threshold: float | None = None,
) -> Comparison:
    """Run the trials on the connected Ray, have their top lists judged, write everything into the folder."""
    labels, digest = read_gold(gold)
    shown = run_config(prepared, config, judge, backend.fingerprint, pretrained) | {
        "judge_model": backend.model,
        "told_until": backend.told_until,
        "tune": plan.to_json(),
        "gold": digest,
    }
    open_run(folder, shown | {"trials": plan.names()}, resume=resume)
    keep_gold(folder, labels, prepared)
    broker = broker or start_broker(prepared.store_uri, backend)
    job = TrainingJob(put_cache(prepared.cache), "", config, broker, folder, pretrained=pretrained, gold=labels)
    with LiveTable("% done") as table:
        results = run_trials(
            plan,
            job,
            prepared.cohort,
            shown,
            size=size,
            qrels=prepared.qrels,
            on_progress=lambda name, report: _show(table, name, report),
            concurrent=concurrent,
            callbacks=callbacks,
            resume=resume,
        )
    ended = [result.trial.name for result in results if result.status == "done"]
    folder.write_yaml(CONFIG, shown | {"trials": ended, "best": ended[0]})
    runs = {run.name: run for run in read_runs(folder.uri)}
    asked = _judge_top_lists(list(runs.values()), broker)
    ray.get(broker.costs.remote())  # writes what an endpoint's calls cost into the folder
    found = _write(folder, prepared, plan, config, results, runs, asked, threshold)
    finals = {one["trial"]: one["mean_reward@10"] for one in folder.read_table(TRIALS_FILE).to_pylist()}
    best = max(ended, key=lambda name: -math.inf if finals[name] is None else finals[name])
    folder.write_yaml(CONFIG, shown | {"trials": ended, "best": best})
    failures = dict(prepared.failures)
    for result in results:
        failures |= result.failures
    return Comparison(results, found, best, failures)


def _show(table: LiveTable, name: str, report: dict[str, Any]) -> None:
    cells = {
        "judgements": f"{report['judgements']}",
        "applicants": f"{report['applicants_done']}/{report['applicants']}",
        "nDCG@10": number(report["ndcg@10"]),
        "reward": number(report["mean_reward"]),
        "judgements/s": f"{report['per_second']:.1f}",
    }
    table.update(name, report["progress"], 100.0, cells)


def _judge_top_lists(runs: Sequence[Run], broker: Any) -> int:
    """Have each trial's top K judged. Returns how many of these distinct pairs no agent had bought in training."""
    wanted: dict[str, dict[str, None]] = {}
    for run in runs:
        for applicant_id, ranked in run.ranked.items():
            wanted.setdefault(applicant_id, {}).update(dict.fromkeys(job_id for job_id, _ in ranked[:K]))
    before = ray.get(broker.requested.remote(list(wanted)))
    BrokerClient(broker).fetch([Slate(applicant_id, tuple(jobs)) for applicant_id, jobs in wanted.items()])
    return sum((applicant_id, job_id) not in before for applicant_id, jobs in wanted.items() for job_id in jobs)


def _write(
    folder: RunFolder,
    prepared: Prepared,
    plan: Plan,
    config: DynaQConfig,
    results: Sequence[TrialResult],
    runs: dict[str, Run],
    asked: int,
    threshold: float | None,
) -> dict[str, Any]:
    """Write the tables and the statistics. Returns the statistics."""
    trials = {result.trial.name: result.trial for result in results}
    largest = max(runs.values(), key=lambda run: len(run.ranked))
    with open_run_store(largest, prepared.store_uri) as store:
        known = Known(judged_pairs(largest, store))
        true = known_truth(store, prepared.qrels, folder)
    finals = [row for name, run in runs.items() for row in final_rows(trials[name], run, known, prepared.qrels)]
    curves = [row for name, run in runs.items() for row in curve_rows(trials[name], run, known)]
    folder.write_table(APPLICANTS_FILE, as_table(finals, FINAL_SCHEMA))
    folder.write_table(CURVES_FILE, as_table(curves, CURVE_SCHEMA))
    folder.write_table(TRIALS_FILE, _trial_table(results, finals))
    found = statistics(results, finals, curves, plan.seeds, threshold) | {
        "budget": config.budget,
        "jobs": len(prepared.cache.job_ids),
        "judgements_used": sum(result.judgements for result in results),
        "judgements_paid": sum(result.paid for result in results),
        "judged_for_the_table": asked,
    }
    for arm in found["strategies"]:
        corrected = corrected_reward([runs[name] for name in arm["trials"]], known.judged, true, K)
        arm["corrected_reward"] = asdict(corrected) if corrected else None
    for status, what in (("stopped", "were ended early by the scheduler"), ("failed", "failed")):
        if count := sum(result.status == status for result in results):
            found["notes"].append(f"{count} of {len(results)} trials {what} and are not compared")
    folder.write_json(COMPARISON, found)
    return found


def _trial_table(results: Sequence[TrialResult], finals: Sequence[dict[str, Any]]) -> pa.Table:
    rows = []
    for result in results:
        own = [row for row in finals if row["trial"] == result.trial.name]
        means = {name: mean_known(np.array([row[name] for row in own])) for name in FINALS}
        rows.append(
            {
                "trial": result.trial.name,
                "strategy": result.trial.strategy,
                "setting": setting_json(result.trial.setting),
                "seed": result.trial.seed,
                "status": result.status,
                "error": result.error,
                "seconds": result.seconds,
                "judgements_used": result.judgements,
                "judgements_paid": result.paid,
                "judgements_per_second": result.per_second,
                **{name: None if math.isnan(value) else value for name, value in means.items()},
            }
        )
    return pa.Table.from_pylist(rows)
