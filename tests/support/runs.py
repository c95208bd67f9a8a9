"""Run folders as training writes them, made in milliseconds without Ray or learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dynaq.agent.config import DynaQConfig

BUDGET, SLATE = 20, 5


def make_run(
    folder: Path,
    store: Path,
    applicants: Sequence[str],
    jobs: Sequence[str],
    *,
    strategy: str = "llm",
    judge: str | None = None,
    seed: int = 0,
) -> Path:
    """A finished run whose rankings and metrics are drawn from the seed. judge: `ledger:FILE`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "strategy": strategy,
        "store": str(store),
        "layout": "extended",
        "applicants": len(applicants),
        "jobs": len(jobs),
        "judge": judge,
        "judge_fingerprint": "ledger-0123456789ab" if judge else None,
        "config": DynaQConfig.load(None, {"budget": BUDGET, "seed": seed}).model_dump(mode="json"),
        "environment": {"python": "3.11.7", "cpus": 2, "gpus": [], "packages": {"torch": "2.13.0"}},
        "started": "2026-01-02T03:04:05+00:00",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    ranked = []
    for one in applicants:
        order = rng.permutation(len(jobs))[:20]
        ranked += [
            {"applicant_id": one, "rank": rank, "job_id": jobs[job], "q_value": 5.0 - rank / 7}
            for rank, job in enumerate(order, start=1)
        ]
    pq.write_table(pa.Table.from_pylist(ranked), folder / "recommendations.parquet")
    asks = strategy != "cosine"
    rows: list[dict[str, Any]] = [
        {
            "applicant_id": one,
            "round": round_,
            "judgements_used": SLATE * round_ if asks else 0,
            "mean_reward": float(rng.uniform(-0.1, 1.0)),
            "cumulative_reward": float(round_),
            "epsilon": 0.1,
            "w_cosine": 0.0,
            "q_loss": 0.5 / round_,
            "model_loss": 0.3 / round_,
            "planning_loss": 0.1 / round_,
            "trust": 0.2 * round_ if asks else float("nan"),
            "abstained": 1 if asks and round_ == 1 else 0,
            "ndcg": float(rng.uniform(0.3, 1.0)),
            "judge_reward": round_ / 10 if asks else None,
            "applied": 0,
            "saved": 0,
            "clicked": 0,
            "ignored": SLATE - (round_ == 1) if asks else 0,
        }
        for one in applicants
        for round_ in range(1, BUDGET // SLATE + 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "metrics.parquet")
    return folder
