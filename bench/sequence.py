"""Whether planning ahead pays when people change with what they see: `dynaq/JobMarket-v1`, on ESCO.

    python -m bench.sequence [--applicants 32] [--seeds 3] [--sessions 20] [--out FOLDER]
                             [--parts table,again,dose,wrong,curve]

A market of 91 occupations with ten postings each (seed 0) and its first applicants. The judge does not err: relevance
3, 2, 1, 0 is APPLY, SAVE, CLICK, IGNORE. Each person is shown 20 lists of five jobs, some days apart, and changes with
them (`dynaq.sequential.people`), by `PEOPLE`; each dynamic alone, all together, and none. A seed draws the people, the
days on which postings close, and the agents' networks. All agents but the cosine have the same reward model (`bayes`,
without pre-training), none shows a job twice, and all know which postings are open. A job's family is its occupation.

Differences are paired over applicants and seeds, with 95 % intervals (Student's t, `dynaq.evaluation.intervals`).
Return is the sum of rewards of the jobs that were looked at, over all sessions. Seconds are CPU seconds of the agent
alone, on one thread.

Parts: `table`; `again` is all dynamics together with as many other applicants and five other seeds; `dose` multiplies
all strengths; `wrong` gives the agents a wrong model: families guessed from the texts, then also people who differ
twice as much and satiation that is all but gone by the next session, faster than any rate that the agents can believe;
`curve` varies the planning updates before each list.

Developed on another market (seed 1), its applicants 48 to 64, with world seed 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dynaq.agent.config import DynaQConfig
from dynaq.agent.pair_features import job_embedding
from dynaq.encoder import Encoder
from dynaq.evaluation.intervals import interval, paired_difference
from dynaq.ingest import ingest_market
from dynaq.judging.judgement import LABEL_VALUES, LABELS
from dynaq.markets import esco_market
from dynaq.qrels import Qrels
from dynaq.sequential.agents import Bandit, Cosine, DiverseBandit, Oracle, SequentialAgents
from dynaq.sequential.people import DYNAMICS, Array, Indices, People, PersonConfig, families_of, similar_rewards
from dynaq.sequential.planning import PlanConfig, greedy
from dynaq.sequential.simulation import ListAgent, Outcome, simulate
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache

POSTINGS_EACH, LIST_SIZE = 10, 5
AGAIN = 5  # seeds of the repetition
LEARNING_AGENTS = ("bandit", "mmr", "history", "planning")  # in all parts but the table and the curve
PEOPLE = PersonConfig(satiation=0.3, recovery=0.8, drift=0.1, depletion=0.02, patience=2)
SETTINGS = {"none": PEOPLE.only(), **{name: PEOPLE.only(name) for name in DYNAMICS}, "together": PEOPLE}
DOSES = (0.0, 0.5, 1.0, 2.0)
PLANNING_UPDATES = (0, 1, 5, 10)
MMR_WEIGHT = 0.5  # of 0.5, 0.7, 0.8 and 0.9, the best with all dynamics on the development market
GUESSED_DISTANCE = 1.0  # of guessed families
AGENT_NAMES = {
    "cosine": "cosine",
    "bandit": "bandit",
    "mmr": "bandit with MMR",
    "history": "history, γ = 0",
    "planning": "history, γ = 0.9, planning",
    "oracle": "oracle of the dynamics",
    "truth": "oracle of dynamics and rewards",
}
OUTCOME_FIELDS = ("returns", "distance", "ndcg", "judgements")


@dataclass
class Market:
    """An embedded market and what the judge says of its pairs."""

    cache: TensorCache
    applicants: list[str]
    base: Array
    embedding: Array
    similar: Array
    families: Indices


def load(folder: Path, seed: int, applicants: slice) -> Market:
    """The market of a seed; embedded on the first run only."""
    market = esco_market(applicants=91, postings=POSTINGS_EACH, seed=seed)
    with open_store(str(folder), create=True) as store:
        ingest_market(store, market, encoder=Encoder(), layout="extended")
        cache = TensorCache.copy_from_database(store, text=True)
    names = list(market.qrels.applicants)[applicants]
    occupations = [cache.job_text(j).metadata["esco_occupation"] for j in range(cache.n_jobs)]
    embedding = job_embedding(cache).double().numpy()
    families = np.unique(occupations, return_inverse=True)[1].astype(np.int64)
    base = judged(cache, market.qrels, names)
    return Market(cache, names, base, embedding, similar_rewards(embedding), families)


def judged(cache: TensorCache, qrels: Qrels, applicants: Sequence[str]) -> Array:
    """The judge's rewards, `[applicants, n_jobs]`."""
    values = [LABEL_VALUES[label] for label in reversed(LABELS)]
    found = np.full((len(applicants), cache.n_jobs), values[0])
    for row, applicant in enumerate(applicants):
        for job_id, grade in qrels.grades(applicant).items():
            found[row, cache.job_index(job_id)] = values[int(grade)]
    return found


def agents(
    market: Market, people: People, sessions: int, seed: int, plan: PlanConfig, families: Indices
) -> dict[str, Callable[[], ListAgent]]:
    """What makes each agent, by its name."""
    shared = (market.cache, market.applicants)
    capacity = sessions * LIST_SIZE
    config = DynaQConfig.load(None, {"world_model": "bayes", "seed": seed})
    learns = partial(SequentialAgents, *shared, capacity, families, seed=seed, config=config)
    knows = partial(Oracle, *shared, capacity, market.families, plan, seed=seed, config=config, people=people)
    return {
        "cosine": lambda: Cosine(*shared),
        "bandit": lambda: Bandit(*shared, capacity, config),
        "mmr": lambda: DiverseBandit(*shared, capacity, MMR_WEIGHT, config=config),
        "history": lambda: learns(plan=greedy(plan)),
        "planning": lambda: learns(plan=plan),
        "oracle": knows,
        "truth": lambda: knows(truth=market.base),
    }


class Timed:
    """An agent whose CPU seconds are counted."""

    def __init__(self, agent: ListAgent) -> None:
        self._agent, self.seconds = agent, 0.0

    def propose(self, *values: Any) -> Indices:
        return self._counted(self._agent.propose, values)

    def observe(self, *values: Any) -> None:
        self._counted(self._agent.observe, values)

    def _counted(self, call: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        began = time.process_time()
        found = call(*values)
        self.seconds += time.process_time() - began
        return found


Table = dict[str, npt.NDArray[Any]]  # field -> [applicants, seeds, sessions], and "seconds" [seeds]


def measure(
    market: Market,
    person: PersonConfig,
    names: Sequence[str],
    seeds: Iterable[int],
    sessions: int,
    plan: PlanConfig | None = None,
    families: Indices | None = None,
) -> dict[str, Table]:
    """What came of each agent."""
    plan = plan or PlanConfig()
    found: dict[str, Table] = {}
    for name in names:
        outcomes: list[Outcome] = []
        seconds = []
        for seed in seeds:
            people = People(person, market.applicants, market.families, market.similar, seed)
            own = market.families if families is None else families
            agent = Timed(agents(market, people, sessions, seed, plan, own)[name]())
            outcomes.append(simulate(people, market.base, market.embedding, agent, sessions=sessions, size=LIST_SIZE))
            seconds.append(agent.seconds)
        found[name] = {field: np.stack([getattr(o, field) for o in outcomes], axis=1) for field in OUTCOME_FIELDS}
        found[name]["seconds"] = np.array(seconds)
        print(f"  {name:<10} return {totals(found[name]).mean():7.2f}  {np.sum(seconds):6.1f} s", flush=True)
    return found


def totals(table: Table) -> Array:
    """Return over all sessions, `[applicants, seeds]`."""
    found: Array = table["returns"].sum(-1)
    return found


def summary(tables: dict[str, Table]) -> dict[str, Any]:
    """The figures of one setting, as the tables print them."""
    record: dict[str, Any] = {"agents": {}, "differences": {}}
    for name, table in tables.items():
        found = interval(totals(table))
        seen = table["judgements"].sum()
        record["agents"][name] = {
            "return": [found.mean, found.low, found.high],
            "per session": float(table["returns"].mean()),
            "first five": float(table["returns"][..., :5].sum(-1).mean()),
            "distance": float(table["distance"].mean()),
            "ndcg": float(np.nanmean(table["ndcg"])),
            "judgements": float(table["judgements"].sum(-1).mean()),
            "ms per judgement": float(1000.0 * table["seconds"].sum() / seen),
            "cumulative": table["returns"].mean((0, 1)).cumsum().tolist(),
        }
    for a, b in (("planning", "history"), ("planning", "mmr"), ("planning", "bandit"), ("history", "bandit")):
        if a in tables and b in tables:
            found = paired_difference(totals(tables[a]), totals(tables[b])).interval
            record["differences"][f"{a} - {b}"] = [found.mean, found.low, found.high]
    mean = {name: float(totals(table).mean()) for name, table in tables.items()}
    for oracle in ("oracle", "truth"):
        if oracle in mean and "planning" in mean and mean[oracle] > mean["bandit"]:
            share = (mean["planning"] - mean["bandit"]) / (mean[oracle] - mean["bandit"])
            record[f"share of the way to {oracle}"] = share
    return record


def dose(market: Market, seeds: range, sessions: int, table: dict[str, Any]) -> dict[str, Any]:
    """Strengths of 0 and 1 are those of the table."""
    found = {}
    for times in DOSES:
        if known := table.get({0.0: "none", 1.0: "together"}.get(times, "")):
            found[str(times)] = known
            continue
        strengths = {name: times * getattr(PEOPLE, name) for name in ("satiation", "drift", "depletion")}
        person = replace(PEOPLE, **strengths, patience=PEOPLE.patience if times else 0)
        print(f"dose {times}", flush=True)
        found[str(times)] = summary(measure(market, person, LEARNING_AGENTS, seeds, sessions))
    return found


def wrong_model(market: Market, seeds: range, sessions: int) -> dict[str, Any]:
    person = replace(PEOPLE, spread=2 * PEOPLE.spread, recovery=0.15)
    guessed = families_of(market.embedding, GUESSED_DISTANCE)
    print(f"wrong model: {guessed.max() + 1} families for {market.families.max() + 1}", flush=True)
    rows = {"wrong families": measure(market, PEOPLE, LEARNING_AGENTS, seeds, sessions, families=guessed)}
    rows["wrong families and rates"] = measure(market, person, LEARNING_AGENTS, seeds, sessions, families=guessed)
    return {name: summary(tables) for name, tables in rows.items()}


def curve(market: Market, seeds: range, sessions: int) -> dict[str, Any]:
    """Planning updates against judgements (Sutton 1990): return so far by the judgements so far."""
    tables: dict[str, Table] = {}
    for updates in PLANNING_UPDATES:
        print(f"{updates} planning updates", flush=True)
        tables[str(updates)] = measure(market, PEOPLE, ("planning",), seeds, sessions, PlanConfig(updates=updates))[
            "planning"
        ]
    found = {
        updates: {
            "judgements": table["judgements"].mean((0, 1)).cumsum().tolist(),
            "return": table["returns"].mean((0, 1)).cumsum().tolist(),
        }
        for updates, table in tables.items()
    }
    for updates in PLANNING_UPDATES[1:]:
        gain = paired_difference(totals(tables[str(updates)]), totals(tables["0"])).interval
        found[str(updates)]["gain"] = [gain.mean, gain.low, gain.high]
    return found


def shown(value: Sequence[float], sign: str = "+") -> str:
    return f"{value[0]:{sign}.2f} [{value[1]:{sign}.2f}, {value[2]:{sign}.2f}]"


def markdown(found: dict[str, Any]) -> str:
    """The tables of bench/sequence.md."""
    lines = []
    if "table" in found:
        lines += [
            "| dynamics | agent | return after 20 sessions | per session | first 5 | distance | nDCG@5 now | "
            "judgements | ms per judgement |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for setting, record in found["table"].items():
            for name, a in record["agents"].items():
                lines.append(
                    f"| {setting} | {AGENT_NAMES[name]} | {shown(a['return'], '')} | {a['per session']:.2f} | "
                    f"{a['first five']:.2f} | {a['distance']:.2f} | {a['ndcg']:.2f} | {a['judgements']:.0f} | "
                    f"{a['ms per judgement']:.2f} |"
                )
        lines += ["", *differences(found["table"], "dynamics")]
    if "again" in found:
        lines += ["", *differences(found["again"], "other applicants and seeds")]
    if "dose" in found:
        lines += ["", *differences(found["dose"], "strength")]
    if "wrong" in found:
        lines += ["", *differences(found["wrong"], "model")]
    if "curve" in found:
        lines += ["", "| planning updates | return | gain over none |", "|--:|--:|--:|"]
        for updates, row in found["curve"].items():
            gain = shown(row["gain"]) if "gain" in row else "–"
            lines.append(f"| {updates} | {row['return'][-1]:.2f} | {gain} |")
    return "\n".join(lines) + "\n"


def differences(records: dict[str, Any], heading: str) -> list[str]:
    columns = ["planning - history", "planning - mmr", "planning - bandit", "history - bandit"]
    ways = ["share of the way to oracle", "share of the way to truth"]
    lines = [
        f"| {heading} | planning - γ 0 | planning - MMR | planning - bandit | γ 0 - bandit | of the way to the oracle "
        "of the dynamics | and of rewards |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, record in records.items():
        cells = [shown(record["differences"][column]) for column in columns]
        cells += [f"{record[way]:.0%}" if way in record else "–" for way in ways]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2))
    if "table" in found:
        for name, a in found["table"]["together"]["agents"].items():
            axes[0].plot(range(1, 1 + len(a["cumulative"])), a["cumulative"], label=AGENT_NAMES[name])
        axes[0].set(title="all dynamics together", xlabel="session", ylabel="return so far")
    if "dose" in found:
        doses = [float(dose) for dose in found["dose"]]
        for pair, label in (("planning - history", "over γ = 0"), ("planning - mmr", "over MMR")):
            rows = np.array([record["differences"][pair] for record in found["dose"].values()])
            error = [rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]
            axes[1].errorbar(doses, rows[:, 0], error, label=label, capsize=3)
        axes[1].axhline(0.0, color="grey", lw=1)
        axes[1].set(title="gain of planning by strength", xlabel="strength of all dynamics", ylabel="return")
    if "curve" in found:
        for updates, row in found["curve"].items():
            axes[2].plot(row["judgements"], row["return"], label=f"{updates} planning updates")
        axes[2].set(title="planning per real judgement", xlabel="judgements per applicant", ylabel="return so far")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("data/esco-sequence"), help="where the market is kept")
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--parts", default="table,again,dose,wrong,curve")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-sequence"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    market = load(args.store, 0, slice(args.applicants))
    size = (range(args.seeds), args.sessions)
    report = args.out / "sequence.json"
    found: dict[str, Any] = json.loads(report.read_text()) if report.is_file() else {}
    found["settings"] = {"people": asdict(PEOPLE), "plan": asdict(PlanConfig())} | {
        name: value for name, value in vars(args).items() if isinstance(value, int)
    }

    def keep(part: str, value: dict[str, Any]) -> None:
        found[part] = value
        report.write_text(json.dumps(found, indent=1), encoding="utf-8")
        (args.out / "sequence.md").write_text(markdown(found), encoding="utf-8")

    parts = args.parts.split(",")
    if "table" in parts:
        table = {}
        for name, person in SETTINGS.items():
            print(name, flush=True)
            table[name] = summary(measure(market, person, tuple(AGENT_NAMES), *size))
            keep("table", table)
    if "again" in parts:
        others = load(args.store, 0, slice(args.applicants, 2 * args.applicants))
        seeds = range(args.seeds, args.seeds + AGAIN)
        keep("again", {"together": summary(measure(others, PEOPLE, LEARNING_AGENTS, seeds, args.sessions))})
    if "dose" in parts:
        keep("dose", dose(market, *size, found.get("table", {})))
    if "wrong" in parts:
        keep("wrong", wrong_model(market, *size))
    if "curve" in parts:
        keep("curve", curve(market, *size))
    plot(found, args.out / "sequence.svg")
    print(markdown(found))


if __name__ == "__main__":
    main()
