"""A comparison: strategies (and settings) over seeds as trials that share one cache, one judge and one ledger.

Training spends its budget on what it wants to learn, so most of a final top 10 was never judged. Judging only what is
known would favour the strategy that looked at its own favourites. So the judge is asked about every trial's top 10 in
the end; these judgements are counted apart and teach nobody.

What lies in the folder, beside one run folder per trial (`OUT/<trial>/`, as `dynaq train` writes them):

    config.yaml        what is compared: `trials` (names), `best` (a trial), `tune` (strategies, seeds, space, …)
    trials.parquet     a row per trial: trial, strategy, setting (JSON of the settings that differ, "{}" for none),
                       seed, status (done | stopped | failed), error, seconds, judgements_used, judgements_paid,
                       judgements_per_second, and the means of the columns of applicants.parquet
    applicants.parquet a row per trial and applicant, final values: trial, strategy, setting, seed, applicant_id,
                       judgements_used, ndcg@10, recall@10, mrr, mean_reward@10, apply_rate@10, save_rate@10,
                       click_rate@10, ignore_rate@10, regret@10, judged@10, cumulative_reward
    curves.parquet     a row per trial, applicant and round: trial, strategy, setting, seed, applicant_id, round,
                       judgements_used, ndcg, recall, mrr (of the ranking after this round), mean_reward (judge's, of
                       this round's pairs), cumulative_reward, cumulative_regret, apply_rate, save_rate, click_rate,
                       ignore_rate (of all pairs so far), q_loss, model_loss, planning_loss, epsilon, w_cosine
    comparison.json    the statistics:

    {"k": 10, "confidence": 0.95, "budget": 50, "applicants": 32, "seeds": [0, 1, 2], "jobs": 856,
     "primary": "ndcg@10",                     the metric that `best` and the first verdicts go by
     "judgements_used": …, "judgements_paid": …, "judged_for_the_table": …, "notes": ["…"],
     "strategies": [
       {"strategy": "llm", "setting": {}, "trials": ["llm-seed0", …], "judgements_used": …, "judgements_paid": …,
        "judgements_per_applicant": 50.0, "judgements_per_second": …, "seconds": …,
        "metrics": {"ndcg@10": {"mean": …, "low": …, "high": …}, …},       every metric of applicants.parquet
        "cold_start": {"judgements": 10, "metrics": {"ndcg": {"mean", "low", "high"}, "mean_reward": …}},
        "steps_to_threshold": {"metric": "ndcg", "threshold": 0.9, "judgements": 25, "low": 20, "high": 30},
        "curves": {"ndcg": {"judgements": […], "mean": […], "low": […], "high": […]}, …}}],
     "pairs": [
       {"a": "llm", "b": "cosine", "metric": "ndcg@10", "phase": "final" | "cold_start",
        "difference": …, "low": …, "high": …, "better": "llm" | "cosine" | null, "verdict": "a sentence"}]}

Unknown values are null there and in the tables; a threshold that is not reached within the budget is null too.
Intervals are bootstrapped over applicants and seeds (`dynaq.statistics`); those of `pairs` hold for all pairs of a
metric at once. `judgements_used` counts the pairs that agents spent of their budgets, `judgements_paid` those that the
judge had to be asked for because the ledger lacked them: whoever asks first pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from cluster.block_actor import TrainingJob
from cluster.broker import BrokerClient, JudgeBackend, start_broker
from cluster.cache import put_cache
from cluster.runfolder import CONFIG, RunFolder
from cluster.trainer import ActorSize
from cluster.tuning import Trial, TrialResult, run_trials
from dynaq.config import DynaQConfig
from dynaq.judge import Slate
from dynaq.pretrain import Pretrained
from jobs.console import Bars, console, say
from jobs.evaluation import Evaluation, evaluate_run
from jobs.judges import judged_pairs
from jobs.runs import open_run_store, read_runs
from jobs.tables import comparison_table
from jobs.training import Prepared, open_run, run_config

K = 10
RESULTS = "results.parquet"


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Args:
        evaluations, seconds: per trial, in the order given.
        asked: pairs that the final judging asked about and training had not, over all trials.
        judged: of all pairs of training and final judging, how many the judge was asked (the rest: ledger).
        failures: applicant -> why it could not be trained, over all trials.
    """

    evaluations: dict[str, Evaluation]
    seconds: dict[str, float]
    asked: int
    judged: int
    failures: dict[str, str]

    @property
    def best(self) -> str:
        """The trial with the highest judge reward; the first when no judge is there to say."""
        return max(self.evaluations, key=lambda name: _or_lowest(self.evaluations[name].mean_reward))


def compare(
    trials: Sequence[Trial],
    prepared: Prepared,
    config: DynaQConfig,
    folder: RunFolder,
    judge: str,
    backend: JudgeBackend,
    *,
    size: ActorSize,
    pretrained: Pretrained | None = None,
    broker: Any = None,
) -> Comparison:
    """Run the trials on the Ray that is connected, judge their top lists, write results into the folder."""
    shown = run_config(prepared, config, judge, backend.fingerprint, pretrained)
    open_run(folder, shown | {"trials": [trial.name for trial in trials]}, resume=False)
    broker = broker or start_broker(prepared.store_uri, backend)
    job = TrainingJob(put_cache(prepared.cache), "", config, broker, folder, pretrained=pretrained)
    with Bars() as bars:

        def show(name: str, report: dict[str, Any]) -> None:
            note = f"judgements, {report['applicants_done']} applicants done, mean reward {report['mean_reward']:.3f}"
            bars.update(name, report["judgements"], config.budget * report["applicants"], note)

        done = run_trials(trials, job, prepared.cohort, shown, size=size, qrels=prepared.qrels, on_progress=show)
    asked = _judge_top_lists(folder, broker)
    result = _evaluate(folder, prepared, done, asked, ray.get(broker.stats.remote()).judged)
    folder.write_yaml(CONFIG, shown | {"trials": [trial.name for trial in trials], "best": result.best})
    rows = [
        {"trial": trial.name, "strategy": trial.strategy, "seconds": result.seconds[trial.name]}
        | {
            name: value
            for name, value in result.evaluations[trial.name].to_json().items()
            if not isinstance(value, list)
        }
        for trial in trials
    ]
    folder.write_table(RESULTS, pa.Table.from_pylist(rows))
    return result


def show_comparison(result: Comparison) -> None:
    """The table and what its figures rest on."""
    console.print(comparison_table(result.evaluations, result.seconds))
    say(
        f"Judge reward and apply rate are the judge's opinion of each strategy's final top {K}. Training had not "
        f"bought {result.asked} of these pairs; they were judged for this table alone. "
        "nDCG is against the relevance that came with the data."
    )
    total = (
        "no pair was new to the ledger, the engine was not started"
        if result.judged == 0
        else (f"{result.judged} pairs were new to the ledger and judged now")
    )
    say(f"Ledger: {total}.")


def _judge_top_lists(folder: RunFolder, broker: Any) -> int:
    """Have each trial's top K judged. Returns how many of these distinct pairs no agent had bought in training."""
    runs = read_runs(folder.uri)
    wanted: dict[str, dict[str, None]] = {}
    for run in runs:
        for applicant_id, ranked in run.ranked.items():
            wanted.setdefault(applicant_id, {}).update(dict.fromkeys(job_id for job_id, _ in ranked[:K]))
    before = ray.get(broker.requested.remote(list(wanted)))
    BrokerClient(broker).fetch([Slate(applicant_id, tuple(jobs)) for applicant_id, jobs in wanted.items()])
    return sum((applicant_id, job_id) not in before for applicant_id, jobs in wanted.items() for job_id in jobs)


def _evaluate(
    folder: RunFolder, prepared: Prepared, done: Sequence[TrialResult], asked: int, judged: int
) -> Comparison:
    runs = {run.name: run for run in read_runs(folder.uri)}
    names = [result.trial.name for result in done]
    with open_run_store(runs[names[0]], prepared.store_uri) as store:
        evaluations = {
            name: evaluate_run(runs[name], judged_pairs(runs[name], store), prepared.qrels, K) for name in names
        }
    failures = dict(prepared.failures)
    for result in done:
        failures |= result.failures
    return Comparison(evaluations, {result.trial.name: result.seconds for result in done}, asked, judged, failures)


def _or_lowest(value: float) -> float:
    return value if value == value else float("-inf")
