"""Settings of the baseline `rllib-dqn`, one at a time, on O*NET applicants whom no evaluation uses.

    python -m bench.rllib_dqn --onet FOLDER [--store FOLDER] [VARIANT …]

nDCG@10 over the whole catalogue after 10, 25 and 50 judgements per applicant, mean over three cohorts of 32 (applicants
96 to 192, each with a seed of its own), and the mean judge reward of what was bought. The first 96 applicants are those
of `bench/quality.py` and are not touched. The variants and what they gave are in `bench/rllib_dqn.md`.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality import GradedJudge, load
from bench.training import score
from cluster.rllib.dqn import RllibDqn, RllibDqnConfig, mean_reward
from cluster.session import ray_session
from dynaq.qrels import Qrels
from dynaq.tensor_cache import TensorCache

FIRST, COHORTS, SIZE, MEASURED_AT = 96, 3, 32, (10, 25, 50)
ALONE = 4  # applicants of each cohort for the variant with a network each

VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "slate 10": {"slate_size": 10},
    "slate 50": {"slate_size": 50},
    "slate 200": {"slate_size": 200},
    "slate 800": {"slate_size": 800},
    "gamma 0.5": {"gamma": 0.5},
    "gamma 0.9": {"gamma": 0.9},
    "lr 3e-4": {"lr": 3e-4},
    "lr 3e-3": {"lr": 3e-3},
    "4 updates": {"updates": 4},
    "16 updates": {"updates": 16},
    "batch 32": {"batch_size": 32},
    "batch 256": {"batch_size": 256},
    "hidden 16": {"hidden": (16,)},
    "hidden 128, 64": {"hidden": (128, 64)},
    "epsilon from 1": {"epsilon_start": 1.0},
    "epsilon over half": {"epsilon_share": 0.5},
    "a network each": {},
}


def one_cohort(
    cache: TensorCache, qrels: Qrels, cohort: list[str], settings: dict[str, Any], seed: int
) -> tuple[list[float], float]:
    """Mean nDCG@10 at MEASURED_AT, and the mean reward."""
    judge = GradedJudge(cache, qrels, 0.0, 0)
    learner = RllibDqn(cache, cohort, judge, RllibDqnConfig(**settings), MEASURED_AT[-1], seed)
    scores = []
    for spent in MEASURED_AT:
        learner.learn_until(spent)
        rows = zip(cohort, learner.q_values(), strict=True)
        scores.append(float(np.mean([score(cache, qrels, name, values) for name, values in rows])))
    reward = mean_reward([judgement for name in cohort for judgement in learner.answers(name)])
    learner.close()
    return scores, reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onet", type=Path, required=True, help="folder of O*NET tables")
    parser.add_argument("--store", type=Path, default=Path("data/onet"), help="where the embedded market is kept")
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(VARIANTS)}; all when none is named")
    args = parser.parse_args()
    cache, qrels = load(args.onet, args.store)
    print(f"{'':<20}" + "".join(f"{at:>8}" for at in MEASURED_AT) + f"{'reward':>9}{'seconds':>9}")
    with ray_session(num_cpus=2, object_store_gib=0.25):
        logging.getLogger("ray").setLevel(logging.ERROR)
        for name in args.variants or VARIANTS:
            began = time.perf_counter()
            runs = []
            for seed in range(COHORTS):
                start = FIRST + seed * SIZE
                cohort = list(qrels.applicants[start : start + SIZE])
                groups = [[one] for one in cohort[:ALONE]] if name == "a network each" else [cohort]
                runs += [one_cohort(cache, qrels, group, VARIANTS[name], seed) for group in groups]
            scores = np.mean([scores for scores, _ in runs], axis=0)
            reward = float(np.mean([reward for _, reward in runs]))
            figures = "".join(f"{score:8.3f}" for score in scores) + f"{reward:9.3f}"
            print(f"{name:<20}{figures}{time.perf_counter() - began:9.0f}", flush=True)


if __name__ == "__main__":
    main()
