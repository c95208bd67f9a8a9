"""nDCG@10 against the quality of the judge: what agents make of a judge that errs, in one run.

    python -m bench.trust --onet FOLDER [--kinds random,echo] [--aucs 0.7,0.9] [--seeds 3] [--out FOLDER]

Judges: `bench.simulated_judges`, of every kind and AUC; each seed draws its errors anew. Markets: ESCO (seed 0, its
first 24 applicants) and O*NET (its first 24). Strategies llm and hybrid, without pre-training, without gold and with 50
gold pairs (half of them relevant, drawn from applicants of the market who are not in the cohort's evaluation); beside
them the judge's own ranking of the whole catalogue (ties at random) and the cosine. Differences are paired over
applicants and seeds, with 95 % intervals (Student's t, `dynaq.evaluation.intervals`). The table error is the mean
absolute error of P(answer | fits) and P(answer | does not) as a block estimates them, against the true ones over all
pairs of the cohort.

Developed on applicants that are not measured here: O*NET applicants 96 to 128, and an ESCO market of seed 1, its
applicants 48 to 72. The kind `keywords` was not looked at during development, nor was `title` until the intercept's
precision was chosen by it, on those applicants.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.simulated_judges import KINDS, CohortPairs, SimulatedJudge
from bench.training import Scores, learning_curve
from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.encoder import Encoder
from dynaq.evaluation.intervals import paired_difference
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.ingest import ingest_market
from dynaq.judging.judgement import Judgement, judgement_from_probabilities
from dynaq.markets import Market, esco_market, onet_market
from dynaq.qrels import Qrels
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache

AUCS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BUDGETS = (30, 50)
STORES = {"ESCO": "esco-48", "O*NET": "onet"}
MARKETS = tuple(STORES)
SIZE, GOLD_LABELS = 24, 50
# Of the table: heading, and the record's field.
COLUMNS = {
    "cosine": "cosine",
    "judge's ranking": "judge",
    **{f"{strategy} {budget}": f"{strategy} {budget}" for strategy in ("llm", "hybrid") for budget in BUDGETS},
    "- cosine": "hybrid - cosine",
    "- llm": "hybrid - llm",
    f"gold {BUDGETS[-1]}": f"hybrid, gold {BUDGETS[-1]}",
    "gold - cosine": "hybrid, gold - cosine",
    "table error": "error",
    "with gold": "error, gold",
}


@dataclass(frozen=True)
class Arena:
    """A market's cohort, and the pairs that gold is drawn from."""

    name: str
    cache: TensorCache
    qrels: Qrels
    cohort: tuple[str, ...]

    def score(self, applicant: str, ranked: Sequence[str]) -> float:
        return ndcg_at_k(ranked, self.qrels.grades(applicant))


def market(name: str, onet: Path) -> Market:
    return esco_market(applicants=2 * SIZE) if name == "ESCO" else onet_market(onet, applicants=512)


def embed(name: str, onet: Path, folder: Path) -> None:
    """One of MARKETS into a store of the folder, on the first run only."""
    with open_store(str(folder / STORES[name]), create=True) as store:
        ingest_market(store, market(name, onet), encoder=Encoder(), layout="extended")


@functools.cache
def arena(name: str, onet: Path, folder: Path) -> Arena:
    """What `embed` has stored; any number of processes may read it."""
    with open_store(str(folder / STORES[name]), read_only=True) as store:
        qrels = store.qrels()
        assert qrels is not None
        cache = TensorCache.copy_from_database(store, text=True)
    return Arena(name, cache, qrels, tuple(market(name, onet).qrels.applicants[:SIZE]))


def gold_labels(arena: Arena, applicants: Sequence[str], seed: int) -> list[Judgement]:
    """Labels made by hand: half of them of jobs that fit."""
    rng = np.random.default_rng([seed, 50])
    labels = []
    for n in range(GOLD_LABELS):
        applicant = applicants[int(rng.integers(len(applicants)))]
        grades = arena.qrels.grades(applicant)
        jobs = sorted(j for j, g in grades.items() if g > 0) if n % 2 else list(arena.cache.job_ids)
        job = jobs[int(rng.integers(len(jobs)))]
        grade = int(grades.get(job, 0.0))
        labels.append(judgement_from_probabilities(applicant, job, np.eye(4)[3 - grade].tolist(), judge="gold"))
    return labels


def train(
    arena: Arena, judge: SimulatedJudge, strategy: str, gold: list[Judgement] | None, seed: int
) -> tuple[Scores, float, float]:
    """nDCG@10 of each applicant by budget, error of the estimated table, mean trust at the end."""
    config = DynaQConfig.load(None, {"budget": BUDGETS[-1], "seed": seed})
    errors, trusts = [], []

    def note_trust(block: DynaQBlock) -> None:
        if block.trust is not None:
            errors.append(float(np.abs(block.trust.rows() - judge.table()).mean()))
            trusts.append(block.trust.trust)

    scores = learning_curve(
        arena.cache, arena.qrels, arena.cohort, judge, strategy, config, BUDGETS, finished=note_trust, gold=gold
    )
    return scores, float(np.mean(errors)), float(np.mean(trusts))


def own_ranking(arena: Arena, judge: SimulatedJudge, seed: int) -> list[float]:
    ties = np.random.default_rng([seed, 1]).random(judge.rewards.shape)
    order = np.lexsort((ties, -judge.rewards), axis=1)[:, :10]
    jobs = arena.cache.job_ids
    return [arena.score(a, [jobs[j] for j in row]) for a, row in zip(arena.cohort, order, strict=False)]


def cell(arena: Arena, kind: str, target: float, seeds: int, with_gold: bool) -> dict[str, Any]:
    """All strategies with one kind of judge of one AUC."""
    others = [a for a in arena.qrels.applicants if a not in arena.cohort][:SIZE]
    cosine = np.array(
        [arena.score(a, [arena.cache.job_ids[j] for j in arena.cache.top_k(a, 10)[0]]) for a in arena.cohort]
    )
    found: dict[str, list[list[float]]] = {}
    notes: dict[str, list[float]] = {"auc": [], "error": [], "trust": [], "error, gold": []}
    for seed in range(seeds):
        pairs = CohortPairs.of(arena.cache, arena.qrels, [*arena.cohort, *others], seed)
        judge = SimulatedJudge(arena.cache, pairs, kind, target, seed)
        notes["auc"].append(judge.reached)
        found.setdefault("judge", []).append(own_ranking(arena, judge, seed))
        for gold in (None, gold_labels(arena, others, seed)) if with_gold else (None,):
            for strategy in ("llm", "hybrid"):
                scores, error, trust = train(arena, judge, strategy, gold, seed)
                suffix = ", gold" if gold else ""
                for budget, values in scores.items():
                    found.setdefault(f"{strategy}{suffix} {budget}", []).append(values)
                if strategy == "hybrid":
                    notes[f"error{suffix}"].append(error)
                    notes["trust"].append(trust)
    tables = {name: np.array(values).T for name, values in found.items()}
    base = np.repeat(cosine[:, None], seeds, axis=1)
    last = BUDGETS[-1]
    record: dict[str, Any] = {"market": arena.name, "kind": kind, "target": target, "cosine": float(cosine.mean())}
    record |= {name: float(np.nanmean(values)) for name, values in tables.items()}
    record |= {name: float(np.mean(values)) for name, values in notes.items() if values}
    for suffix in ("", ", gold") if with_gold else ("",):
        hybrid = tables[f"hybrid{suffix} {last}"]
        for other, values in (("cosine", base), ("llm", tables[f"llm{suffix} {last}"])):
            interval = paired_difference(hybrid, values).interval
            record[f"hybrid{suffix} - {other}"] = [interval.mean, interval.low, interval.high]
    return record


def measure(onet: Path, store: Path, seeds: int, with_gold: bool, work: tuple[str, str, float]) -> dict[str, Any]:
    """One cell, in a process of its own."""
    torch.set_num_threads(1)
    name, kind, target = work
    return cell(arena(name, onet, store), kind, target, seeds, with_gold)


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """The table of bench/trust.md, without the columns of gold if nothing was measured with gold.

    A target that the kind cannot reach repeats the judge of the one before: one row.
    """
    gold = any("gold" in name for record in records for name in record)
    columns = {heading: name for heading, name in COLUMNS.items() if gold or "gold" not in name}
    lines = ["| " + " | ".join(["market", "error", "AUC", *columns]) + " |", "|---|---|--:|" + "--:|" * len(columns)]
    last: dict[str, Any] = {}
    for record in records:
        if record | {"target": None} != last:
            cells = [record["market"], record["kind"], f"{record['auc']:.2f}"]
            cells += [_cell(record.get(name)) for name in columns.values()]
            lines.append("| " + " | ".join(cells) + " |")
        last = record | {"target": None}
    return "\n".join(lines) + "\n"


def _cell(value: float | list[float] | None) -> str:
    if isinstance(value, list):
        return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]"
    return "–" if value is None else f"{value:.3f}"


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    markets = list(dict.fromkeys(r["market"] for r in records))
    kinds = list(dict.fromkeys(r["kind"] for r in records))
    figure, axes = pyplot.subplots(
        len(markets), len(kinds), figsize=(3.2 * len(kinds), 3.2 * len(markets)), sharex=True, squeeze=False
    )
    for row, market in zip(axes, markets, strict=True):
        for axis, kind in zip(row, kinds, strict=True):
            own = [r for r in records if r["market"] == market and r["kind"] == kind]
            for name, style in (("judge", ":"), (f"llm {BUDGETS[-1]}", "--"), (f"hybrid {BUDGETS[-1]}", "-")):
                axis.plot([r["auc"] for r in own], [r[name] for r in own], style, marker="o", ms=3, label=name)
            axis.axhline(own[0]["cosine"], color="grey", lw=1, label="cosine")
            axis.set(title=f"{market}, {kind}", xlabel="judge's AUC", ylabel="nDCG@10")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onet", type=Path, required=True, help="folder of O*NET tables")
    parser.add_argument("--store", type=Path, default=Path("data"), help="where the embedded markets are kept")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--aucs", default=",".join(map(str, AUCS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-gold", action="store_true")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that measure cells")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-trust"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in MARKETS:
        embed(name, args.onet, args.store)
    cells = list(itertools.product(MARKETS, args.kinds.split(","), map(float, args.aucs.split(","))))
    records = []
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        work = functools.partial(measure, args.onet, args.store, args.seeds, not args.no_gold)
        for record in pool.map(work, cells):
            records.append(record)
            print(markdown([record]).splitlines()[-1], flush=True)
            (args.out / "trust.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    (args.out / "trust.md").write_text(markdown(records), encoding="utf-8")
    plot(records, args.out / "trust.svg")


if __name__ == "__main__":
    main()
