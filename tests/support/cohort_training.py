"""A cohort trained by a judge that keeps a rule, on a store of tests/support/markets.py."""

from __future__ import annotations

from pathlib import Path

import ray

from cluster.block_actor import TrainingJob
from cluster.broker import start_broker
from cluster.cache import put_cache
from cluster.trainer import ActorSize, CohortResult, CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.runs.folder import RunFolder
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from tests.support.judges import RuleJudge
from tests.support.markets import APPLICANTS

CONFIG = DynaQConfig(budget=20, slate_size=2, block_size=2, warm_start_updates=5)
COHORT = [f"a{i:03d}" for i in range(APPLICANTS)]


def train(
    store: str,
    folder: Path,
    judge: RuleJudge,
    actors: int = 2,
    on_progress: object = None,
) -> CohortResult:
    """Train COHORT into `folder`/run."""
    with open_store(store, read_only=True) as opened:
        cache = TensorCache.copy_from_database(opened)
    broker = start_broker(store, judge.backend())
    job = TrainingJob(put_cache(cache), "llm", CONFIG, broker, RunFolder.at(folder / "run"))
    callback = on_progress if callable(on_progress) else lambda progress: None
    try:
        return CohortTrainer(job, COHORT, size=ActorSize(actors=actors), on_progress=callback).run()
    finally:
        ray.kill(broker)
