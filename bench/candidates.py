"""Agents that consider some thousand candidates of a large catalogue, against agents that consider all of it.

    python -m bench.candidates index   --market STORE --other STORE [--jobs 100000]
    python -m bench.candidates quality --market STORE --other STORE [--jobs 100000] [--applicants 32]
    python -m bench.candidates memory  --market STORE --other STORE [--jobs 1000000]

The catalogue is the market's, padded with jobs made from the jobs of both stores (`bench.large_catalogue`). --file
keeps its vectors, mapped as the cache is on a cluster; by default a temporary file.

`index`: what an index finds of the exact top 10, 100 and 1,000, for applicants (cosine) and for the neighbourhoods of
jobs, in lists of 3,584; seconds are of the processor. `quality`: nDCG@10 with the market's relevance as judge, and how
much of the ten jobs that an agent would rank first in the whole catalogue is in its list: everything is ranked by the
agent's own world model after the same answers, in pieces. `memory`: the processor's seconds per round of a block of 16,
and what the process holds for itself (RssAnon), which leaves the mapped vectors and index out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from bench.large_catalogue import PaddedRelevance, padded
from dynaq.agent.candidate_pool import CandidatePool
from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.agent.reward_strategy import make_strategy
from dynaq.agent.trust_world_model import TrustWorldModel
from dynaq.evaluation.intervals import interval
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.evaluation.run_quality import K
from dynaq.job_index import JobIndex, indexed_vectors, with_index
from dynaq.judging.judgement import LABEL_VALUES, LABELS, Judgement, Slate, judgement_from_probabilities
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache

MIB = 1 << 20
LISTED = 3584
PIECE = 4096  # jobs ranked at once
Search = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]


class Relevance:
    """The judge: grades 3, 2, 1, 0 are APPLY, SAVE, CLICK, IGNORE."""

    def __init__(self, qrels: PaddedRelevance) -> None:
        self._qrels = qrels

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        return [[self._answer(slate.applicant_id, job_id) for job_id in slate.job_ids] for slate in slates]

    def _answer(self, applicant_id: str, job_id: str) -> Judgement:
        label = 3 - int(self._qrels.grades(applicant_id).get(job_id, 0))
        return judgement_from_probabilities(applicant_id, job_id, np.eye(4)[label].tolist(), judge="relevance")


def ranked_everything(block: DynaQBlock, jobs: int) -> npt.NDArray[np.float32]:
    """What the block's world model expects of the first `jobs` jobs of the catalogue, `[agents, jobs]`."""
    candidates, judged = block.candidates(), block.judged
    assert candidates is not None
    agents, n = len(candidates), judged.longest
    own = np.take_along_axis(candidates, judged.jobs[:, :n].numpy(), axis=1)
    moved = JudgedPairs(agents, n + PIECE, n, block.device)
    moved.load_state({name: t[:, :n] if t.ndim > 1 else t for name, t in judged.state().items()})
    moved.jobs = torch.arange(n).expand(agents, -1).clone()
    values = torch.tensor([LABEL_VALUES[label] for label in LABELS])
    found = np.empty((agents, jobs), np.float32)
    for start in range(0, jobs, PIECE):
        piece = np.arange(start, min(start + PIECE, jobs))
        rows = np.concatenate([own, np.broadcast_to(np.resize(piece, PIECE), (agents, PIECE))], axis=1)
        pool = CandidatePool(block.pool.cache, block.applicant_ids, n + PIECE, block.device, block.generators, rows)
        model = TrustWorldModel(pool, values)
        model.load_state(block.model.state(), moved)
        found[:, piece] = model.mean[:, n : n + len(piece)].numpy()
        for agent in range(agents):  # a judged job is at its own place, where it is believed as judged
            here = (own[agent] >= piece[0]) & (own[agent] <= piece[-1])
            found[agent, own[agent, here]] = model.mean[agent, :n].numpy()[here]
    return found


def quality(
    cache: TensorCache, qrels: PaddedRelevance, applicants: Sequence[str], budget: int, block_size: int
) -> None:
    judge = Relevance(qrels)
    scores: dict[str, list[float]] = {"candidates": [], "whole": []}
    listed, held, same = [], [], []
    settings = {"budget": budget, "block_size": block_size}
    for start in range(0, len(applicants), block_size):
        members = applicants[start : start + block_size]
        lists: dict[str, list[list[str]]] = {}
        for name, candidates in (("candidates", 4096), ("whole", cache.n_jobs)):
            config = DynaQConfig.load(None, settings | {"candidates": candidates})
            began = time.process_time()
            block = DynaQBlock(cache, members, make_strategy("llm", config), config).fit(judge)
            lists[name] = [[job_id for job_id, _ in own] for own in block.recommendations(K)]
            seconds = time.process_time() - began
            scores[name] += [ndcg_at_k(own, qrels.grades(a), K) for a, own in zip(members, lists[name], strict=True)]
            print(f"  {name}: {seconds:.0f} s, nDCG@{K} so far {np.mean(scores[name]):.3f}", flush=True)
            if name == "candidates":
                everything, known = ranked_everything(block, cache.n_jobs), block.candidates()
                assert known is not None
                for agent, own in enumerate(lists[name]):
                    best = np.argsort(-everything[agent], kind="stable")[:K]
                    held.append(float(np.isin(best, known[agent]).mean()))
                    listed.append(len({cache.job_id(int(row)) for row in best} & set(own)) / K)
                print(f"    of the best {K} of all: {np.mean(held):.3f} candidates, {np.mean(listed):.3f} listed")
        pairs = zip(lists["candidates"], lists["whole"], strict=True)
        same += [len(set(a) & set(b)) / K for a, b in pairs]
    apart = interval([a - b for a, b in zip(scores["candidates"], scores["whole"], strict=True)])
    print(f"nDCG@{K}, {len(applicants)} applicants, {budget} judgements, {cache.n_jobs} jobs:")
    print(f"  candidates {np.mean(scores['candidates']):.4f}, whole catalogue {np.mean(scores['whole']):.4f}")
    print(f"  difference {apart.mean:+.4f} ({apart.low:+.4f} to {apart.high:+.4f})")
    print(f"of the {K} jobs that an agent would rank first of all: {np.mean(held):.4f} are candidates,")
    print(
        f"  {np.mean(listed):.4f} are in its list; agents trained separately share {np.mean(same):.2f} of their lists"
    )


def memory(cache: TensorCache, applicants: Sequence[str], qrels: PaddedRelevance, budget: int) -> None:
    torch.set_num_threads(1)
    before = anonymous()
    config = DynaQConfig(budget=budget)
    began, wall = time.process_time(), time.perf_counter()
    block = DynaQBlock(cache, applicants, make_strategy("llm", config), config)
    started = time.process_time() - began
    print(f"start: {started:.1f} s of the processor, {time.perf_counter() - wall:.1f} s", flush=True)
    rounds, peak = [], 0.0
    for _ in range(budget // config.slate_size):
        began, wall = time.process_time(), time.perf_counter()
        block.step(Relevance(qrels))
        rounds.append(time.process_time() - began)
        peak = max(peak, anonymous())
        print(f"  round {block.round}: {rounds[-1]:.2f} s, {time.perf_counter() - wall:.2f} s on the clock", flush=True)
    print(
        f"{len(applicants)} agents, {cache.n_jobs} jobs, {budget} judgements: median round {np.median(rounds):.2f} s,"
    )
    print(f"  own memory {before:.0f} MiB before the block, {peak:.0f} MiB at most after a round")


def anonymous(process: int | str = "self") -> float:
    """What a process holds for itself in MiB, without mapped files: those it alone maps would count in USS."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) / 1024


def index_table(cache: TensorCache, applicants: Sequence[str], methods: Sequence[str]) -> None:
    jobs = np.random.default_rng(1).integers(0, len(cache.jobs), len(applicants))
    vectors = np.concatenate([indexed_vectors(cache, slice(s, s + 8192)) for s in range(0, cache.n_jobs, 8192)])
    queries = JobIndex(with_index(cache))
    asked = (np.stack([queries.of_applicant(name) for name in applicants]), queries.of_jobs(jobs))
    exact = [np.argsort(-(q @ vectors.T), axis=1, kind="stable")[:, :1000] for q in asked]
    print("index | build s | MiB | ms per query | cosine: top 10, 100, 1,000 | neighbours: top 10, 100, 1,000")
    for method in methods:
        began = time.process_time()
        search, size = INDICES[method](vectors)
        built = time.process_time() - began
        began = time.process_time()
        found = [search(q) for q in asked]
        each = (time.process_time() - began) / len(applicants) / len(asked)
        shares = [
            [np.mean([np.isin(e[:top], f).mean() for e, f in zip(best, own, strict=True)]) for top in (10, 100, 1000)]
            for best, own in zip(exact, found, strict=True)
        ]
        shown = " | ".join(" ".join(f"{share:.3f}" for share in row) for row in shares)
        print(f"{method} | {built:.1f} | {size / MIB:.1f} | {each * 1000:.1f} | {shown}", flush=True)


def _faiss(components: int, cells: int, code: str, probed: int) -> Callable[[npt.NDArray[np.float32]], Any]:
    def make(vectors: npt.NDArray[np.float32]) -> tuple[Search, int]:
        sample = vectors[np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), 50_000), False))]
        found = faiss.PCAMatrix(sample.shape[1], components)
        found.train(sample)
        projection = faiss.LinearTransform(sample.shape[1], components, False)
        projection.A, projection.is_trained = found.A, True
        spec = f"IVF{cells},{code}" if cells else code
        index: Any = faiss.IndexPreTransform(
            projection, faiss.index_factory(components, spec, faiss.METRIC_INNER_PRODUCT)
        )
        index.train(sample)
        index.add(vectors)
        if cells:
            faiss.extract_index_ivf(index).nprobe = max(1, cells // probed)
        return lambda queries: index.search(queries, LISTED)[1], len(faiss.serialize_index(index))

    return make


def _usearch(vectors: npt.NDArray[np.float32]) -> tuple[Search, int]:
    from usearch.index import Index  # compared only, not a dependency

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="i8", expansion_search=LISTED)
    index.add(np.arange(len(vectors)), vectors)

    def search(queries: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return np.stack([np.resize(index.search(q, LISTED).keys.astype(np.int64), LISTED) for q in queries])

    return search, index.memory_usage


INDICES: dict[str, Callable[[npt.NDArray[np.float32]], tuple[Search, int]]] = {
    "faiss PCA128,SQ8, all": _faiss(128, 0, "SQ8", 1),
    "faiss PCA128,IVF256,SQ8, 1/4 of the cells": _faiss(128, 256, "SQ8", 4),
    "faiss PCA128,IVF256,SQ8, 1/8 of the cells": _faiss(128, 256, "SQ8", 8),
    "faiss PCA128,HNSW32": _faiss(128, 0, "HNSW32", 1),
    "usearch HNSW, i8": _usearch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["index", "quality", "memory"])
    parser.add_argument("--market", required=True, help="store with relevance")
    parser.add_argument("--other", action="append", default=[], help="further store to make jobs from")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--block-size", type=int, default=4, help="quality: agents that consider everything are large")
    parser.add_argument("--methods", nargs="+", default=list(INDICES))
    parser.add_argument("--file", type=Path)
    args = parser.parse_args()
    with open_store(args.market, read_only=True) as store:
        market, qrels = TensorCache.copy_from_database(store), store.qrels()
        if qrels is None:
            parser.error(f"store {args.market} has no relevance")
    others = [TensorCache.copy_from_database(other, layout=market.layout) for other in args.other]
    with tempfile.TemporaryDirectory() as folder:
        cache, parents = padded(market, others, args.jobs, args.file or Path(folder) / "jobs.f32")
        relevance = PaddedRelevance(qrels, cache.job_ids, parents)
        if args.what == "index":
            index_table(cache, qrels.applicants[: args.applicants], args.methods)
            return
        began = time.process_time()
        cache = with_index(cache)
        assert cache.job_index_bytes is not None
        size = cache.job_index_bytes.nbytes / MIB
        print(f"{args.jobs} jobs, index of {size:.0f} MiB built in {time.process_time() - began:.0f} s", flush=True)
        if args.what == "quality":
            quality(cache, relevance, qrels.applicants[: args.applicants], args.budget, args.block_size)
        else:
            memory(cache, qrels.applicants[:16], relevance, args.budget)


if __name__ == "__main__":
    main()
