"""A run folder with all that training writes, trained by the real actors' code in the test's process, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from cluster.block_actor import BlockActor, TrainingJob
from cluster.cache import CacheRef
from cluster.trainer import CohortTrainer
from dynaq.agent.config import DynaQConfig
from dynaq.runs.folder import CONFIG, RunFolder, cohort_digest
from dynaq.tensor_cache import TensorCache
from tests.support.toy_market import GradeSource, ToyMarket, small_config

BLOCK = 3  # applicants per block
CONFIG_OF_RUN = small_config(budget=4, slate_size=2, block_size=BLOCK, warm_start_updates=2)


@dataclass(frozen=True)
class _Here:
    """Stands for the cache in the object store."""

    cache: TensorCache

    def attach(self) -> TensorCache:
        return self.cache


def trained_run(
    folder: RunFolder,
    market: ToyMarket,
    cache: TensorCache,
    cohort: Sequence[str],
    blocks: int | None = None,
    config: DynaQConfig = CONFIG_OF_RUN,
) -> RunFolder:
    """Train a cohort into a folder, or go on with what is there.

    cache: of the store as it is now. blocks: stop after so many blocks, as if interrupted.
    """
    job = TrainingJob(cast(CacheRef, _Here(cache)), "llm", config, None, folder)
    if not folder.exists(CONFIG):
        shown: dict[str, Any] = {
            "strategy": "llm",
            "store": str(market.store),
            "layout": "extended",
            "applicants": len(cohort),
            "cohort": cohort_digest(cohort),
            "jobs": len(cache.job_ids),
            "judge": "vllm",
            "judge_fingerprint": "toy",
            "config": config.model_dump(mode="json"),
            "environment": {},
            "started": "2026-01-02T03:04:05+00:00",
        }
        folder.write_yaml(CONFIG, shown)
    trainer = CohortTrainer(job, cohort)
    trainer._take_finished()
    left = [trainer._block(index) for index in trainer._places if index not in trainer._trained]
    for block in left[:blocks]:
        actor = BlockActor(job)
        actor._source = cast(Any, GradeSource(market.grades))
        for progress in actor.train(block):
            trainer._take(progress, block)
    if blocks is None:
        trainer._collect(0.0)
    return folder
