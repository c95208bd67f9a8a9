"""A cluster's day, simulated: the same cohort trained in peace, and while everything that may happen does.

    python -m bench.cluster_day [--applicants 48] [--nodes 2] [--every 8] [--away 10] [--rounds 1]

Each node is a real Ray node on this machine (`ray.cluster_utils.Cluster`), the store a real mongod, the judge a rule
that answers after a delay and writes down every pair. In the second run, an event every so many seconds: a node joins,
one is lost without notice as a spot instance is, the broker's process is killed, the database goes away for a while and
comes back, a node leaves in order. Rounds of these go on until training ends.

Says what happened when, whether all lists and metrics are those of the quiet run, and how many pairs were asked about
twice: at most those whose answer the broker held and had not written when it was killed.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from cluster.block_actor import TrainingJob
from cluster.broker import start_broker
from cluster.cache import put_cache
from cluster.session import ray_session
from cluster.trainer import ActorSize, CohortProgress, CohortResult, CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.runs.folder import RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from tests.support.judges import RuleJudge
from tests.support.markets import make_store
from tests.support.mongod import running_mongod

NODE = {"num_cpus": 1, "object_store_memory": 128 << 20, "node_ip_address": "127.0.0.1"}


@dataclass
class Day:
    """A cluster, its database and what may happen to them.

    Args:
        cluster: of which the driver's node stays.
        data: folder of the database.
        away: seconds that the database is away.
        nodes: beside the driver's, oldest first.
        broker: of the run.
        happened: events so far, in words.
    """

    cluster: Cluster
    data: Path
    away: float
    nodes: list[Any] = field(default_factory=list)
    broker: Any = None
    happened: list[str] = field(default_factory=list)

    def __enter__(self) -> Day:
        self._server = running_mongod(self.data)
        self.uri = f"{self._server.__enter__()}/market"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(None, None, None)
        self.cluster.shutdown()

    def join(self) -> None:
        """A node joins."""
        self.nodes.append(self.cluster.add_node(**NODE))

    def lose(self) -> None:
        """A node is gone at once."""
        if self.nodes:
            self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)

    def leave(self) -> None:
        """A node leaves in order."""
        if self.nodes:
            self.cluster.remove_node(self.nodes.pop(), allow_graceful=True)

    def kill_broker(self) -> None:
        """The broker's process dies."""
        ray.kill(self.broker, no_restart=False)

    def stop_database(self) -> None:
        """The database is away for a while."""
        self._server.__exit__(None, None, None)
        time.sleep(self.away)
        self._server = running_mongod(self.data, port=int(self.uri.rsplit(":", 1)[1].partition("/")[0]))
        self._server.__enter__()

    def go_on(self, every: float, rounds: int, ended: threading.Event) -> None:
        """Let it all happen, one event after another, `rounds` times or until training ends."""
        began = time.monotonic()
        events: list[Callable[[], None]] = [self.join, self.lose, self.kill_broker, self.stop_database]
        events += [self.join, self.leave]
        for event in events * rounds:
            if ended.wait(every):
                return
            at = time.monotonic() - began
            event()
            self.happened.append(f"{at:6.1f} s  {event.__doc__} ({time.monotonic() - began - at:.1f} s)")
            print(f"  {self.happened[-1]}", flush=True)


def train(day: Day, judge: RuleJudge, arguments: argparse.Namespace, *, eventful: bool) -> CohortResult:
    """Train everyone; `eventful`: from the first round on, things happen."""
    make_store(day.uri, arguments.jobs, arguments.applicants)
    with open_store(day.uri, read_only=True) as store:
        cache = TensorCache.copy_from_database(store)
    config = DynaQConfig(budget=arguments.budget, slate_size=2, block_size=arguments.block_size, warm_start_updates=5)
    day.broker = start_broker(day.uri, judge.backend())
    started, ended = threading.Event(), threading.Event()

    def heard(progress: CohortProgress) -> None:
        started.set()

    job = TrainingJob(put_cache(cache), "llm", config, day.broker, RunFolder.at(day.data / "run"))
    trainer = CohortTrainer(job, cache.applicant_ids, size=ActorSize(actors=arguments.actors), on_progress=heard)

    def run() -> CohortResult:
        try:
            return trainer.run()
        finally:
            ended.set()
            started.set()

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(run)
        started.wait()
        if eventful:  # here, since Ray starts nodes in the main thread only
            day.go_on(arguments.every, arguments.rounds, ended)
        result = training.result()
    ray.kill(day.broker)
    return result


def run_day(data: Path, arguments: argparse.Namespace, *, eventful: bool) -> tuple[CohortResult, list[str]]:
    """A cluster from its start to its end. Returns the run, and what happened."""
    data.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    judge = RuleJudge(data / "asked.log", delay=arguments.delay)
    with Day(cluster, data, arguments.away) as day, ray_session(cluster.address):
        for _ in range(arguments.nodes):
            day.join()
        cluster.wait_for_nodes()
        result = train(day, judge, arguments, eventful=eventful)
    asked = judge.answered
    print(
        f"{data.name}: {result.seconds:.1f} s, {len(asked)} pairs, {len(asked) - len(set(asked))} of them asked again"
    )
    return result, day.happened


def same(a: pa.Table, b: pa.Table) -> bool:
    """Whether two tables are equal, NaN being equal to NaN."""
    return bool(a.schema == b.schema and a.to_pandas().equals(b.to_pandas()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applicants", type=int, default=48)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=2, help="at the start, beside the driver's")
    parser.add_argument("--actors", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.5, help="of the judge, seconds")
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two events")
    parser.add_argument("--away", type=float, default=10.0, help="seconds without database")
    parser.add_argument("--rounds", type=int, default=1, help="how often all events happen, if training lasts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        quiet, _ = run_day(Path(name) / "quiet", arguments, eventful=False)
        other, happened = run_day(Path(name) / "eventful", arguments, eventful=True)
        lists, metrics = same(quiet.recommendations, other.recommendations), same(quiet.metrics, other.metrics)
    print(
        f"{arguments.applicants} applicants, {len(happened)} events: lists {'the same' if lists else 'DIFFERENT'}, "
        f"metrics {'the same' if metrics else 'DIFFERENT'}, {len(other.failures)} not trained, "
        f"{other.seconds / quiet.seconds:.2f} times as long"
    )
    if other.failures or not (lists and metrics):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
