"""dynaq tune on real actors: what it writes, what it pays for, and that neither a crash nor a kill costs a trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import ray

from cluster.block_actor import TrainingJob
from cluster.broker import start_broker
from cluster.cache import put_cache
from cluster.trainer import ActorSize
from cluster.tuning.plan import Plan
from cluster.tuning.trials import run_trials
from dynaq.agent.config import DynaQConfig
from dynaq.errors import DynaqError, JudgeError
from dynaq.judging.judgement import Judgement
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run
from jobs.terminal.comparison_table import report_failed_trials
from tests.support.judges import RuleJudge
from tests.support.markets import APPLICANTS, make_ledger, make_store

COHORT = [f"a{i:03d}" for i in range(APPLICANTS)]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    make_store(str(folder / "store"))
    make_ledger(folder / "ledger.parquet")
    (folder / "config.yaml").write_text("block_size: 3\nwarm_start_updates: 5\n")
    return folder


def tune(market: Path, out: Path, *options: str) -> list[str]:
    shared = ["--store", f"{market}/store", "--judge", f"ledger:{market}/ledger.parquet", "--budget", "10"]
    return ["tune", *shared, "--config", f"{market}/config.yaml", "--actors", "1", "--out", str(out), *options]


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_comparison_with_rllibs_dqn_over_seeds(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(tune(market, out, "--strategies", "llm,rllib-dqn", "--seeds", "2", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    names = ["llm-seed0", "llm-seed1", "rllib-dqn-seed0", "rllib-dqn-seed1"]
    assert [(one["trial"], one["status"]) for one in found["trials"]] == [(name, "done") for name in names]
    assert found["seeds"] == [0, 1]
    trials = {row["trial"]: row for row in pq.read_table(out / "trials.parquet").to_pylist()}
    assert {row["judgements_used"] for row in trials.values()} == {10 * APPLICANTS}
    # Trials share one judge and one ledger, so a pair is paid for once.
    curves = pq.read_table(out / "curves.parquet").to_pylist()
    assert {row["trial"] for row in curves} == set(names)
    paid, used = found["judgements_paid"], found["judgements_used"]
    assert used == 40 * APPLICANTS
    assert sum(row["judgements_paid"] for row in trials.values()) == paid < used
    finals = pq.read_table(out / "applicants.parquet").to_pylist()
    assert len(finals) == 4 * APPLICANTS
    assert all(row["judged@10"] == 1.0 for row in finals)
    mean = sum(row["mean_reward@10"] for row in finals if row["strategy"] == "llm") / (2 * APPLICANTS)
    llm, dqn = found["strategies"]
    assert llm["metrics"]["mean_reward@10"]["mean"] == pytest.approx(mean)
    assert llm["trials"] == names[:2]
    assert dqn["curves"]["ndcg"]["judgements"] == llm["curves"]["ndcg"]["judgements"] == [5, 10]
    assert {pair["metric"] for pair in found["pairs"]} >= {"ndcg@10", "mean_reward@10", "regret@10"}
    assert all(pair["verdict"] for pair in found["pairs"])
    assert json.loads((out / "comparison.json").read_text()) == {
        name: value for name, value in found.items() if name not in ("run", "best", "trials")
    }
    page = (out / "report.html").read_text()
    assert "rllib-dqn" in page


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_searcher_and_asha_over_a_space(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "out"
    space.write_text("gamma: [0.0, 0.9]\nlearning_rate: {loguniform: [1e-4, 1e-2]}\n")
    options = ("--strategies", "llm", "--space", str(space), "--search", "hyperopt", "--samples", "3", "--json")
    assert run(tune(market, out, *options)) == 0
    found = json.loads(capsys.readouterr().out)
    trials = pq.read_table(out / "trials.parquet").to_pylist()
    settings = [json.loads(row["setting"]) for row in trials]
    assert len(trials) == len({row["trial"] for row in trials}) == 3
    assert all(one["gamma"] in (0.0, 0.9) and 1e-4 <= one["learning_rate"] <= 1e-2 for one in settings)
    assert {row["status"] for row in trials} <= {"done", "stopped"}
    assert "chosen by the same figures" in found["notes"][1] or len(found["strategies"]) == 1
    config = RunFolder.at(out / found["best"]).read_yaml("config.yaml")["config"]
    assert config["learning_rate"] in [one["learning_rate"] for one in settings]


class FlakyJudge(RuleJudge):
    """Fails on its first request, then answers."""

    async def judge_async(self, applicant: Candidate, jobs: list[Job]) -> list[Judgement]:  # type: ignore[override]
        marker = self.log.with_suffix(".failed")
        if not marker.exists():
            marker.touch()
            raise JudgeError("the judge is away")
        return await super().judge_async(applicant, jobs)


@contextmanager
def trials_of(folder: Path, judge: RuleJudge) -> Iterator[TrainingJob]:
    """A job for trials in a folder, on a store of its own and with this judge."""
    store = str(folder / "store")
    make_store(store)
    with open_store(store, read_only=True) as opened:
        cache = TensorCache.copy_from_database(opened)
    broker = start_broker(store, judge.backend())
    config = DynaQConfig(budget=20, block_size=3, warm_start_updates=5)
    try:
        yield TrainingJob(put_cache(cache), "", config, broker, RunFolder.at(folder / "run"))
    finally:
        ray.kill(broker)


def trial_processes() -> list[psutil.Process]:
    """Processes of this session's Tune trials, which Ray names by their function."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith(("ray::ImplicitFunc", "ray::train_trial")):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_trial_that_fails_is_tried_again_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    judge = FlakyJudge(tmp_path / "asked.log", delay=0.05)
    killed: list[int] = []

    def kill_once(name: str, report: dict[str, Any]) -> None:
        for process in trial_processes() if not killed else []:
            killed.append(process.pid)
            process.kill()

    with trials_of(tmp_path, judge) as job:
        [result] = run_trials(
            Plan(("llm",)), job, COHORT, {}, size=ActorSize(actors=2), qrels=None, on_progress=kill_once
        )
    assert killed
    assert (result.status, result.failures, result.judgements) == ("done", {}, 20 * APPLICANTS)
    assert len(judge.answered) == len(set(judge.answered)) == 20 * APPLICANTS
    assert result.paid >= 20 * APPLICANTS  # pairs requested while the judge was down are billed, too


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_trial_that_fails_for_good_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.tuning.trials.RETRIES", 0)
    judge = RuleJudge(tmp_path / "asked.log", failing_applicants=tuple(COHORT))
    with trials_of(tmp_path, judge) as job:
        plan = Plan(("cosine", "llm"))
        found = run_trials(plan, job, COHORT, {}, size=ActorSize(actors=1), qrels=None, on_progress=lambda *_: None)
    assert [(result.trial.name, result.status) for result in found] == [("cosine", "done"), ("llm", "failed")]
    assert "the judge refuses applicant" in found[1].error
    with pytest.raises(DynaqError, match="1 of 2 trials failed"):
        report_failed_trials(found)
    assert "llm: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scheduler", "asha"), "--scheduler is about settings to try"),
        (("--search", "hyperopt"), "--search is about settings to try"),
        (("--samples", "3"), "--samples is about settings to try"),
        (("--scheduler", "pbt"), "'pbt' is not one of 'asha', 'none'"),
        (("--search", "grid", "--space", "SPACE"), "'grid' is not one of 'random', 'hyperopt', 'optuna'"),
        (("--search", "optuna", "--space", "SPACE"), "needs the package optuna"),
        (("--samples", "3", "--space", "SPACE"), "tried in full"),
        (("--strategies", "llm,rllib-dqn", "--space", "SPACE"), "rllib-dqn has others"),
        (("--strategies", "llm,greedy"), "'greedy'"),
        (("--strategies", ","), "names none"),
        (("--mlflow", "http://127.0.0.1:5000"), "--mlflow needs the package mlflow"),
        (("--wandb", "jobs"), "--wandb needs the package wandb"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused_at_once(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "space.yaml").write_text("gamma: [0.5, 0.9]\n")
    given = [str(tmp_path / "space.yaml") if option == "SPACE" else option for option in options]
    assert run(tune(market, tmp_path / "out", *given)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_session_fixture")
def test_a_killed_comparison_goes_on_where_it_was(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ("--strategies", "cosine,llm,hybrid", "--concurrent", "1")
    command = [sys.executable, "-m", "jobs.cli", *tune(market, out, *options)]
    first = out / "cosine" / "recommendations.parquet"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not (first.exists() and (out / "llm" / "config.yaml").exists()):
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "comparison.json").exists()
    before = first.read_bytes()
    assert run(tune(market, out, *options)) == 2  # without --resume nothing is overwritten
    assert "--resume" in capsys.readouterr().err
    again = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert [one["status"] for one in found["trials"]] == ["done"] * 3
    assert found["judgements_used"] == 2 * 10 * APPLICANTS
    assert found["judgements_paid"] <= found["judgements_used"]
    assert first.read_bytes() == before  # what was done stays done
