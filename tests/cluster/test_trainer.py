"""Cohort training under faults that are really caused: the same recommendations, nobody twice, nothing paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray import serve

from cluster.block_actor import BlockProgress, TrainingJob
from cluster.broker import JudgeBackend, start_broker
from cluster.cache import put_cache
from cluster.session import CORES
from cluster.trainer import ActorSize, CohortProgress, CohortTrainer, _Totals
from dynaq.judging.judgement import Judgement
from dynaq.means import mean_known
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RECOMMENDATIONS, RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from reward_service.client import ServeJudge
from tests.support.cohort_training import COHORT, CONFIG, train
from tests.support.judges import FINGERPRINT, RuleJudge
from tests.support.markets import APPLICANTS, make_store
from tests.support.mongod import running_mongod

AWAY_SECONDS = 8.0  # longer than the driver waits for a server, so that the broker has to ask again


@pytest.fixture
def store(tmp_path: Path) -> str:
    make_store(str(tmp_path / "store"))
    return str(tmp_path / "store")


@dataclass(frozen=True)
class Quiet:
    """A run that nothing happened to: its recommendations, and its progress from round to round."""

    recommendations: pa.Table
    progress: list[CohortProgress]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, ray_session_fixture: None) -> Quiet:
    folder = tmp_path_factory.mktemp("undisturbed")
    make_store(str(folder / "store"))
    seen: list[CohortProgress] = []
    result = train(str(folder / "store"), folder, RuleJudge(folder / "asked.log"), on_progress=seen.append)
    return Quiet(result.recommendations, seen)


@pytest.fixture
def undisturbed(quiet: Quiet) -> pa.Table:
    """Recommendations of a run that nothing happened to."""
    return quiet.recommendations


def block_actors() -> list[psutil.Process]:
    """Processes of this session's actors that are training a block now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::BlockActor.train"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.usefixtures("ray_session_fixture")
def test_the_result_does_not_depend_on_the_number_of_actors(store: str, tmp_path: Path, undisturbed: pa.Table) -> None:
    """Two before, three here, and one in the test of checkpoints."""
    assert train(store, tmp_path, RuleJudge(tmp_path / "log"), actors=3).recommendations == undisturbed


@pytest.mark.parametrize(
    ("size", "actors"),
    [
        (ActorSize(), 2),  # one per core, not one per slot
        (ActorSize(actors=4), 4),  # as told
        (ActorSize(trials=3), 1),
        (ActorSize(reserved_cpus=7), 1),
    ],
)
def test_actors_fit_the_cores_of_a_machine_that_schedules_more(
    size: ActorSize, actors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, CORES: 2.0})
    assert size.count(blocks=7) == actors


def test_sums_of_progress_are_those_of_the_newest_reports() -> None:
    """Reports arrive in any order, several per block, some without a reward."""
    totals, newest = _Totals(), {}
    rng = np.random.default_rng(0)
    for step in range(60):
        block, done = int(rng.integers(5)), step >= 55
        reward = float("nan") if step % 7 == 0 else float(rng.normal())
        report = BlockProgress(
            block % 5 if not done else step - 55, step, 3 * step, reward, 0.5, done, {}, {"trust": reward}
        )
        newest[report.index] = report
        totals.take(report, applicants=4)
        assert totals.judgements == sum(one.judgements for one in newest.values())
        assert totals.weighted_rounds == 4 * sum(one.round for one in newest.values())
        expected = mean_known([one.reward for one in newest.values()])
        assert totals.mean("reward") == pytest.approx(expected, nan_ok=True)
        assert totals.mean("trust") == pytest.approx(expected, nan_ok=True)
    assert totals.done == 20


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_large_cohort_has_the_same_result_in_parts_and_is_told_less_often(
    store: str, tmp_path: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import trainer

    large = {"MANY_BLOCKS": 1, "REPORT_SECONDS": 1000.0, "PARTITIONED_ABOVE": 2, "PART_BLOCKS": 2}
    for name, value in large.items():
        monkeypatch.setattr(trainer, name, value)
    seen: list[CohortProgress] = []
    result = train(store, tmp_path, RuleJudge(tmp_path / "log"), on_progress=seen.append)
    assert result.recommendations == undisturbed
    assert len(list((tmp_path / "run" / RECOMMENDATIONS).iterdir())) == 2
    assert result.metrics.num_rows == 10 * APPLICANTS
    assert seen[-1].done == APPLICANTS
    assert len(seen) <= APPLICANTS // 2 + 1  # the end of each block, and of the cohort


def test_progress_ends_with_everyone_done_and_the_budget_spent(quiet: Quiet) -> None:
    seen, last = quiet.progress, quiet.progress[-1]
    assert (last.done, last.judgements, last.budget) == (APPLICANTS, 20 * APPLICANTS, 20 * APPLICANTS)
    assert [p.judgements for p in seen] == sorted(p.judgements for p in seen)
    assert seen[0].seconds_left is not None


@pytest.mark.usefixtures("ray_session_fixture")
def test_an_actor_killed_in_the_middle_of_a_block_costs_nothing_but_time(
    store: str, tmp_path: Path, undisturbed: pa.Table
) -> None:
    judge = RuleJudge(tmp_path / "asked.log", delay=0.1)
    killed: list[int] = []

    def kill_one(progress: CohortProgress) -> None:
        if progress.round >= 3 and not killed and (actors := block_actors()):
            killed.append(actors[0].pid)
            actors[0].kill()

    result = train(store, tmp_path, judge, on_progress=kill_one)
    assert killed
    assert result.recommendations == undisturbed
    assert result.failures == {}
    assert len(judge.answered) == len(set(judge.answered))


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_block_goes_on_from_its_checkpoint_with_the_same_result(
    store: str, tmp_path: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops after a checkpoint in the middle, as a driver that dies does, and runs again."""
    from cluster import block_actor

    judge = RuleJudge(tmp_path / "asked.log")
    with open_store(store, read_only=True) as opened:
        cache = put_cache(TensorCache.copy_from_database(opened))
    broker = start_broker(store, judge.backend())
    folder = RunFolder.at(tmp_path / "run")
    job = TrainingJob(cache, "llm", CONFIG, broker, folder)
    monkeypatch.setattr(block_actor, "CHECKPOINT_SECONDS", 0.0)
    rounds = block_actor.BlockActor(job).train(block_actor.Block(0, tuple(COHORT[:2]), {}))
    for _ in range(4):
        next(rounds)
    assert folder.read_json("agents/block_00000.json")["round"] == 4
    result = CohortTrainer(job, COHORT, size=ActorSize(actors=1)).run()
    ray.kill(broker)
    assert result.recommendations == undisturbed
    used = {(row["applicant_id"], row["round"]) for row in result.metrics.to_pylist()}
    assert len(used) == result.metrics.num_rows == 10 * APPLICANTS


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_judge_that_fails_on_one_block_is_reported_and_the_others_are_trained(store: str, tmp_path: Path) -> None:
    judge = RuleJudge(tmp_path / "asked.log", failing_applicants=("a001",))
    result = train(store, tmp_path, judge)
    assert set(result.failures) == {"a000", "a001"}
    assert "a001" in result.failures["a000"]
    assert set(result.recommendations.column("applicant_id").to_pylist()) == set(COHORT[2:])


DRIVER = """
import sys
from pathlib import Path
from cluster.session import ray_session
from tests.support.judges import RuleJudge
from tests.support.cohort_training import train
with ray_session(num_cpus=4, object_store_gib=0.25):
    train(sys.argv[1], Path(sys.argv[2]), RuleJudge(Path(sys.argv[2]) / "asked.log", delay=0.2))
"""


@pytest.mark.slow
def test_a_driver_killed_with_sigkill_goes_on_when_it_is_started_again(
    store: str, tmp_path: Path, undisturbed: pa.Table
) -> None:
    judge = RuleJudge(tmp_path / "asked.log")
    command = [sys.executable, "-c", DRIVER, store, str(tmp_path)]
    first = subprocess.Popen(command, start_new_session=True, env=os.environ)
    deadline = time.monotonic() + 120
    while len(judge.answered) < 30 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert 30 <= len(judge.answered) < 20 * APPLICANTS
    assert subprocess.run(command, env=os.environ, timeout=200, check=False).returncode == 0
    assert pq.read_table(tmp_path / "run" / RECOMMENDATIONS) == undisturbed
    paid_twice = len(judge.answered) - len(set(judge.answered))
    assert paid_twice == 0


@pytest.mark.slow
def test_a_node_that_goes_away_takes_nothing_with_it_and_each_node_got_the_cache_once(
    store: str, tmp_path: Path, undisturbed: pa.Table
) -> None:
    command = [sys.executable, "-m", "tests.support.two_nodes", store, str(tmp_path)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    happened = json.loads(done.stdout.splitlines()[-1])
    assert happened == {"holders": [1, 2], "nodes": [2, 1], "failures": {}}
    assert pq.read_table(tmp_path / "run" / RECOMMENDATIONS) == undisturbed
    answered = RuleJudge(tmp_path / "asked.log").answered
    assert len(answered) == len(set(answered))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session_fixture")
def test_a_database_that_is_away_for_a_while_delays_a_run_and_changes_nothing(
    tmp_path: Path, undisturbed: pa.Table
) -> None:
    """The server is really stopped, and started again over the same data after AWAY_SECONDS."""
    judge = RuleJudge(tmp_path / "asked.log", delay=0.2)
    with ExitStack() as stack:
        server = running_mongod(tmp_path)
        uri = server.__enter__()
        make_store(f"{uri}/market")
        outages: list[threading.Thread] = []

        def restart() -> None:
            server.__exit__(None, None, None)
            time.sleep(AWAY_SECONDS)
            stack.enter_context(running_mongod(tmp_path, port=int(uri.rsplit(":", 1)[1])))

        def stop_once(progress: CohortProgress) -> None:
            if progress.round >= 3 and not outages:
                outages.append(threading.Thread(target=restart))
                outages[0].start()

        result = train(f"{uri}/market", tmp_path, judge, on_progress=stop_once)
        outages[0].join()
    assert result.seconds > AWAY_SECONDS
    assert result.failures == {}
    assert result.recommendations == undisturbed
    assert len(judge.answered) == len(set(judge.answered))


@serve.deployment(health_check_period_s=1)
class RuleReplica:
    """The rule judge as the Serve deployment that the real engine is."""

    def __init__(self, log: Path) -> None:
        self._judge = RuleJudge(log, delay=0.15)

    async def judge(self, applicant: Candidate, jobs: list[Job], variant: dict[str, Any]) -> list[Judgement]:
        return await self._judge.judge_async(applicant, jobs)

    async def pid(self) -> int:
        return os.getpid()


@pytest.mark.slow
@pytest.mark.usefixtures("judge_service")  # Serve keeps the address of its first start, which this fixture makes
def test_a_serve_replica_that_is_killed_is_waited_for(store: str, tmp_path: Path, undisturbed: pa.Table) -> None:
    handle = serve.run(RuleReplica.bind(tmp_path / "asked.log"), name="rule", route_prefix=None)
    replica = handle.pid.remote().result()
    judge = ServedRule(tmp_path / "asked.log", handle)
    killed: list[int] = []

    def kill_replica(progress: CohortProgress) -> None:
        if progress.round >= 3 and not killed:
            killed.append(replica)
            psutil.Process(replica).kill()

    result = train(store, tmp_path, judge, on_progress=kill_replica)
    serve.delete("rule")
    assert killed == [replica]
    assert not psutil.pid_exists(replica)
    assert result.failures == {}
    assert result.recommendations == undisturbed
    assert len(judge.answered) == len(set(judge.answered))


class ServedRule(RuleJudge):
    """Asks the deployment, through the client that the real judge has."""

    def __init__(self, log: Path, handle: Any) -> None:
        super().__init__(log)
        self._client = ServeJudge(handle, FINGERPRINT)

    def backend(self) -> JudgeBackend:
        client = self._client
        return JudgeBackend(FINGERPRINT, lambda: client)
