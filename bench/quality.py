"""nDCG@10 over the whole catalogue by budget: the agents, their ablations and the baselines, in one run.

    python -m bench.quality --onet FOLDER [--seeds 3] [--applicants 32] [--out FOLDER]

Data: the O*NET market with 512 applicants. Each seed evaluates its own 32; the judge is the relevance itself
(3, 2, 1, 0 → APPLY, SAVE, CLICK, IGNORE), clean, and with each pair's answer replaced by a random one with
probability 0.3 once and for all. Pre-training uses a ledger of 416 applicants whom no seed evaluates: half trained
from the cosine prior (100 judgements each, ε 0.3), then half from networks pre-trained on the first half (150 each,
ε 0.1), as a platform's first two cohorts would have left it. The judge's errors are estimated from the ledger.
Method and settings were developed on applicants 96 to 160, whom no seed evaluates.

The two judges are measured in two processes of one thread each. The textbook agent (`preset: reference` with tuned
exploration), the slowest by far, is measured on the first seed's first 8 applicants and up to 100 judgements.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from bench.baselines import BASELINES, View
from bench.training import Scores, learning_curve, score
from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.pair_features import job_embedding
from dynaq.encoder import Encoder
from dynaq.evaluation.intervals import interval
from dynaq.ingest import ingest_market
from dynaq.judging.judgement import (
    JUDGEMENT_SCHEMA,
    LABEL_VALUES,
    LABELS,
    Judgement,
    Slate,
    judgement_from_probabilities,
    judgement_row,
)
from dynaq.markets import onet_market
from dynaq.pretraining.fit import pretrain
from dynaq.pretraining.prior import Pretrained
from dynaq.qrels import Qrels
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache

BUDGETS = (0, 25, 50, 100, 200)
TARGETS = (0.65, 0.90, 0.96, 0.98, 0.99)
APPLICANTS, EVALUATED = 512, 96
NOISE = 0.3
Values = npt.NDArray[np.int64]


def modelled_rewards(block: DynaQBlock) -> npt.NDArray[Any]:
    return block.model.mean.numpy()


class GradedJudge:
    """Answers with the relevance grade, or, for a fixed random share of the pairs, with a random label."""

    def __init__(self, cache: TensorCache, qrels: Qrels, noise: float, seed: int) -> None:
        self._cache = cache
        self._labels: dict[str, Values] = {}
        for applicant in qrels.applicants:
            grades = np.zeros(len(cache.job_ids), dtype=np.int64)
            for job_id, grade in qrels.grades(applicant).items():
                grades[cache.job_index(job_id)] = int(grade)
            rng = np.random.default_rng([seed, cache.applicant_index(applicant)])
            wrong = rng.random(len(grades)) < noise
            self._labels[applicant] = 3 - np.where(wrong, rng.integers(0, 4, len(grades)), grades)
        self.made: list[Judgement] = []

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        answers = [[self._answer(slate.applicant_id, job_id) for job_id in slate.job_ids] for slate in slates]
        self.made += [judgement for slate in answers for judgement in slate]
        return answers

    def _answer(self, applicant: str, job_id: str) -> Judgement:
        label = int(self._labels[applicant][self._cache.job_index(job_id)])
        return judgement_from_probabilities(applicant, job_id, np.eye(4)[label].tolist(), judge="graded")

    def rewards(self, applicant: str, jobs: Sequence[int]) -> npt.NDArray[np.float64]:
        values = np.array([LABEL_VALUES[label] for label in LABELS])
        return values[self._labels[applicant][list(jobs)]]


@dataclass
class Bench:
    """What all methods share."""

    cache: TensorCache
    qrels: Qrels
    seeds: int
    size: int
    seconds: dict[str, float] = field(default_factory=dict)

    def cohort(self, seed: int) -> list[str]:
        return list(self.qrels.applicants[seed * self.size : (seed + 1) * self.size])

    def agents(
        self,
        judge: GradedJudge,
        cohort: Sequence[str],
        strategy: str,
        pretrained: Pretrained | None,
        by_model: bool = False,
        **settings: Any,
    ) -> Scores:
        """nDCG of a cohort's agents whenever their budget passes one of BUDGETS.

        by_model: rank by the world model's mean instead of Q, which shows what Q adds to it.
        """
        config = DynaQConfig.load(None, {"budget": BUDGETS[-1], **settings})
        values = modelled_rewards if by_model else DynaQBlock.q_values
        return learning_curve(
            self.cache, self.qrels, cohort, judge, strategy, config, BUDGETS, values=values, pretrained=pretrained
        )

    def baseline(self, name: str, judge: GradedJudge, cohort: Sequence[str], seed: int, networks: Pretrained) -> Scores:
        embedding = job_embedding(self.cache)
        kernel = torch.exp(torch.cdist(embedding, embedding).square() / -2.0).double().numpy()
        rewards = torch.tensor([LABEL_VALUES[label] for label in LABELS])
        expected = (networks.prior(self.cache, cohort, torch.device("cpu")).static @ rewards).double().numpy()
        scores: Scores = {}
        for row, applicant in enumerate(cohort):
            view = View(
                self.cache.calculate_cosine_similarities(applicant).astype(np.float64),
                self.cache.block_similarities(applicant).astype(np.float64),
                embedding.double().numpy(),
                kernel,
                expected[row],
                networks.noise,
            )
            rng = np.random.default_rng([seed, self.cache.applicant_index(applicant)])
            rankings = BASELINES[name](view, lambda jobs, a=applicant: judge.rewards(a, jobs), BUDGETS, rng)
            for budget, values in rankings.items():
                scores.setdefault(budget, []).append(score(self.cache, self.qrels, applicant, values))
        return scores


def earlier_cohorts(bench: Bench, noise: float, seed: int) -> pa.Table:
    """The ledger that two earlier cohorts left behind."""
    others = list(bench.qrels.applicants[EVALUATED:])
    half = len(others) // 2
    judge = GradedJudge(bench.cache, bench.qrels, noise, seed)
    first = {"budget": 100, "epsilon_start": 0.3, "epsilon_end": 0.3, "seed": 1000 + seed}
    bench.agents(judge, others[:half], "llm", None, **first)
    second = {"budget": 150, "epsilon_start": 0.1, "epsilon_end": 0.1, "seed": 1000 + seed}
    bench.agents(judge, others[half:], "llm", pretrain(bench.cache, _table(judge), seed=seed), **second)
    return _table(judge)


def _table(judge: GradedJudge) -> pa.Table:
    return pa.Table.from_pylist([judgement_row(j) for j in judge.made], schema=JUDGEMENT_SCHEMA)


TEXTBOOK_APPLICANTS = 8
# Tuned on applicants 96 to 104: 0.397/0.632/0.669/0.633 at 0/25/50/100. The preset's own decay of 0.995 is still mostly
# random at 100 judgements.
TEXTBOOK = {"preset": "reference", "epsilon_decay": 0.9}
NO_PLANNING = {"planning_updates": 0}
ABLATIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "no cohort pre-training": ({"world_model": "trust"}, False),
    "no pre-training, all believed": ({"world_model": "bayes"}, False),
    "no warm start": ({"warm_start": False}, True),
    "no planning": (NO_PLANNING, True),
    "no uncertainty": ({"judge_noise": 0.0, "ucb": 0.0}, True),
}


PLAIN = {**NO_PLANNING, "tabular": False}


def one_seed(
    bench: Bench, ledger: pa.Table, noise: float, seed: int, textbook: bool, wanted: Sequence[str]
) -> dict[str, Scores]:
    """Every method on one cohort; those whose names are wanted, if any are."""
    cohort = bench.cohort(seed)
    judge = GradedJudge(bench.cache, bench.qrels, noise, seed)
    networks = pretrain(bench.cache, ledger, exclude=cohort, seed=seed)
    print(f"seed {seed}: estimated share of wrong answers {networks.noise.errors:.3f}", flush=True)
    agents = partial(bench.agents, judge, cohort, seed=seed)
    methods: dict[str, Callable[[], Scores]] = {
        f"Dyna-Q, {name}": partial(agents, strategy=name, pretrained=networks) for name in ("llm", "hybrid", "cosine")
    }
    for name, (settings, starts) in ABLATIONS.items():
        methods[f"  {name}"] = partial(agents, strategy="llm", pretrained=networks if starts else None, **settings)
    methods["  ranked by the world model's mean"] = partial(agents, strategy="llm", pretrained=networks, by_model=True)
    for name in BASELINES:
        methods[name] = partial(bench.baseline, name, judge, cohort, seed, networks)
    methods["Q-learning without planning"] = partial(agents, strategy="llm", pretrained=None, **PLAIN)
    if textbook:
        few = cohort[:TEXTBOOK_APPLICANTS]
        settings = {**TEXTBOOK, "budget": 100, "seed": seed}
        methods["textbook Dyna-Q"] = partial(bench.agents, judge, few, strategy="llm", pretrained=None, **settings)
    scores = {}
    for name, method in methods.items():
        if wanted and name.strip() not in wanted:
            continue
        started = time.perf_counter()
        scores[name] = method()
        bench.seconds[name] = bench.seconds.get(name, 0.0) + time.perf_counter() - started
    return scores


def run(bench: Bench, noise: float, wanted: Sequence[str] = ()) -> tuple[dict[str, Scores], dict[str, float]]:
    """Every method, or those wanted, on every seed with one judge, and the seconds of each."""
    torch.set_num_threads(1)
    table: dict[str, Scores] = {}
    for seed in range(bench.seeds):
        # One ledger per seed, so that intervals include the variation between ledgers.
        ledger = earlier_cohorts(bench, noise, seed)
        for name, scores in one_seed(bench, ledger, noise, seed, seed == 0 and noise == 0.0, wanted).items():
            for budget, values in scores.items():
                table.setdefault(name, {}).setdefault(budget, []).extend(values)
    return table, bench.seconds


def by_ledger(values: Sequence[float], size: int) -> npt.NDArray[np.float64]:
    """`[applicants, ledgers]`, NaN for another ledger's applicants; values: a ledger's `size` applicants at a time.

    Every seed has applicants, a ledger and random answers of its own, so that intervals hold what other draws of them
    would have changed.
    """
    found = np.full((len(values), -(-len(values) // size)), np.nan)
    rows = np.arange(len(values))
    found[rows, rows // size] = values
    return found


def show(title: str, table: dict[str, Scores], size: int) -> None:
    print(f"\n{title}: nDCG@10, mean over applicants and seeds [95 % interval over applicants and ledgers]")
    print(f"{'':<30}" + "".join(f"{budget:>24}" for budget in BUDGETS))
    print(f"{'to reach (clean)':<30}" + "".join(f"{target:>24.2f}" for target in TARGETS))
    for name, scores in table.items():
        cells = []
        for budget in BUDGETS:
            if not (values := scores.get(budget)):
                cells.append("–")
                continue
            found = interval(by_ledger(values, size), within=(0.0, 1.0))
            cells.append(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
        print(f"{name:<30}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def show_changes(table: dict[str, Scores], size: int) -> None:
    """How the same applicants' nDCG@10 changes from one budget to the next: a curve that falls is seen here first."""
    print("change from the budget before, same applicants [95 % interval over applicants and ledgers]")
    for name in [name for name in ("Dyna-Q, llm", "Dyna-Q, hybrid") if name in table]:
        cells = ["–"]
        for before, after in pairwise(BUDGETS):
            change = (np.array(table[name][after]) - np.array(table[name][before])).tolist()
            found = interval(by_ledger(change, size), symmetric=True)
            cells.append(f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
        print(f"{name:<24}" + "".join(f"{cell:>27}" for cell in cells), flush=True)


def plot(tables: dict[str, dict[str, Scores]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(tables), figsize=(7 * len(tables), 5), sharey=True, squeeze=False)
    for axis, (title, table) in zip(axes[0], tables.items(), strict=True):
        for name, scores in table.items():
            budgets = [b for b in BUDGETS if b in scores]
            style = "-" if name.startswith("Dyna-Q") else ":" if name.startswith(" ") else "--"
            axis.plot(budgets, [np.nanmean(scores[b]) for b in budgets], style, marker="o", ms=3, label=name.strip())
        axis.set(title=title, xlabel="judgements per applicant", ylabel="nDCG@10")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def load(onet: Path, store_folder: Path) -> tuple[TensorCache, Qrels]:
    """The market in a store of the extended layout; embedded on the first run only."""
    with open_store(str(store_folder), create=True) as store:
        ingest_market(store, onet_market(onet, applicants=APPLICANTS), encoder=Encoder(), layout="extended")
        qrels = store.qrels()
        assert qrels is not None
        return TensorCache.copy_from_database(store), qrels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onet", type=Path, required=True, help="folder of O*NET tables")
    parser.add_argument("--store", type=Path, default=Path("data/onet"), help="where the embedded market is kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--method", action="append", default=[], help="only this row; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-quality"))
    args = parser.parse_args()
    cache, qrels = load(args.onet, args.store)
    bench = Bench(cache, qrels, args.seeds, args.applicants)
    if args.seeds * args.applicants > EVALUATED:
        parser.error(f"at most {EVALUATED} applicants are held out for evaluation")
    args.out.mkdir(parents=True, exist_ok=True)
    judges = {"clean judge": 0.0, f"noisy judge ({NOISE:.0%} random)": NOISE}
    tables = {}
    with ProcessPoolExecutor(len(judges), mp_context=get_context("spawn")) as pool:
        runs = {title: pool.submit(run, bench, noise, args.method) for title, noise in judges.items()}
        for title, future in runs.items():
            tables[title], seconds = future.result()
            (args.out / "quality.json").write_text(json.dumps(tables, indent=1), encoding="utf-8")
            show(title, tables[title], bench.size)
            show_changes(tables[title], bench.size)
            print("seconds: " + ", ".join(f"{name.strip()} {value:.0f}" for name, value in seconds.items()), flush=True)
    plot(tables, args.out / "quality.svg")


if __name__ == "__main__":
    main()
