"""Seconds of a whole cohort's training, beside the textbook agent, from a loaded store.

    python -m bench.cohort --onet FOLDER                                  32 applicants, 50 judgements, and the textbook
    python -m bench.cohort --onet FOLDER --device cuda --applicants 1000  on a GPU; applicants repeat past 512

The textbook agent (`preset: reference`, ε-greedy from 1.0, bootstrapping on the same action, planning over replayed
pairs, no warm start) is run with ten times the judgements on a few applicants, and compared per applicant: it does not
reach the same nDCG with fewer. Both are stacked and batched by the same code, which is kinder to the textbook than its
usual one-applicant loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.quality import TEXTBOOK, GradedJudge, load
from bench.training import learning_curve
from dynaq.agent.config import DynaQConfig
from dynaq.qrels import Qrels
from dynaq.tensor_cache import TensorCache


def train(
    cache: TensorCache, qrels: Qrels, applicants: Sequence[str], device: str, settings: dict[str, Any]
) -> tuple[float, float]:
    """Seconds and mean nDCG@10 of training the applicants block by block."""
    config = DynaQConfig.load(None, settings)
    judge = GradedJudge(cache, qrels, noise=0.0, seed=0)
    started = time.perf_counter()
    scores = learning_curve(cache, qrels, applicants, judge, "llm", config, [config.budget], device=device)
    return time.perf_counter() - started, float(np.mean(scores[config.budget]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onet", type=Path, required=True, help="folder of O*NET tables")
    parser.add_argument("--store", type=Path, default=Path("data/onet"), help="where the embedded market is kept")
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--judgements", type=int, default=50)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--textbook-applicants", type=int, default=2, help="0 leaves the comparison out")
    args = parser.parse_args()
    cache, qrels = load(args.onet, args.store)
    # An applicant can be in a block once, so a pass over all of them is cut into blocks before they repeat.
    applicants = [qrels.applicants[i % len(qrels.applicants)] for i in range(args.applicants)]
    settings = {"budget": args.judgements, "block_size": args.block_size}
    train(cache, qrels, applicants[:1], args.device, settings)  # first use of the kernels
    seconds, ndcg = train(cache, qrels, applicants, args.device, settings)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"Dyna-Q: {args.applicants} applicants x {args.judgements} judgements on {len(cache.job_ids)} jobs, {where}:")
    print(f"  {seconds:.1f} s, {seconds / args.applicants * 1000:.0f} ms per applicant, nDCG@10 {ndcg:.3f}", flush=True)
    if args.textbook_applicants:
        few = applicants[: args.textbook_applicants]
        budget = 10 * args.judgements
        slow, reached = train(cache, qrels, few, args.device, {**TEXTBOOK, "budget": budget, "block_size": len(few)})
        ratio = (slow / len(few)) / (seconds / args.applicants)
        print(f"textbook: {len(few)} applicants x {budget} judgements:")
        print(f"  {slow:.1f} s, {slow / len(few) * 1000:.0f} ms per applicant, nDCG@10 {reached:.3f}")
        print(f"ratio per applicant: {ratio:.0f}x (target >= 20x)")


if __name__ == "__main__":
    main()
