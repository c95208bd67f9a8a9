"""Which agents know best what a person does next: the next job that they act on positively, split by time.

    python -m bench.next_item [--jobs 0] [--applicants 32] [--sessions 12] [--from 4] [--dynamics none,satiation]

Simulated people (`dynaq.sequential.people`) on ESCO with postings, as in `bench.sequence`, or with `--jobs N` on N jobs
of N / 10 kinds made of random vectors, which takes no embedding, visit a service that draws
five jobs of the cosine's ranking (`dynaq.feedback.exposure_policy`), and the log holds one event per job that they
looked at: apply, save, click or ignore, whichever is worth what is nearest to their reward. No agent chooses what is in
the log. From session `--from` on, before each session, every agent has learned from the sessions before it and ranks
the jobs that the person has not acted on; its nDCG@10 has one relevant job, the first of the coming session that is
applied to or saved. Sessions without one do not count. An applicant's value is their mean over sessions, and
differences are paired over applicants, with 95 % intervals.

The agents are those of `bench.sequence`. *history* ranks by what is expected of each job now, as a service does with
`memory: true`; *its list* is the same agent's list of ten, where each job lowers the next of its kind; planning gives
lists, too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.sequence import AGENT_NAMES, LIST_SIZE, PEOPLE, Market, agents, load
from dynaq.agent.pair_features import job_embedding
from dynaq.evaluation.intervals import interval, paired_difference
from dynaq.feedback.exposure_policy import explore
from dynaq.judging.judgement import LABEL_VALUES
from dynaq.layout import BLOCK_DIM, EXTENDED
from dynaq.records import Candidate, Job
from dynaq.sequential.agents import best_open
from dynaq.sequential.people import DYNAMICS, NO_JOB, Array, Indices, Mask, People, PersonConfig, similar_rewards
from dynaq.sequential.planning import PlanConfig
from dynaq.stores import FloatArray, open_store
from dynaq.tensor_cache import TensorCache

COMPARED_AGENTS = ("cosine", "bandit", "history", "planning")
RANKINGS = ("cosine", "bandit", "history", "its list", "planning")
RANKING_PAIRS = (("bandit", "cosine"), ("history", "bandit"), ("its list", "history"), ("planning", "its list"))
POSITIVE = LABEL_VALUES["SAVE"]
RANKED = 10
LOG_SHARPNESS = 0.7
SPREAD = 0.3  # of a job around its kind's centre, and of a person around theirs


def synthetic(folder: Path, jobs: int, applicants: int, seed: int = 0) -> Market:
    """Kinds of ten nearly equal jobs, and people who look like three kinds that they want and three that they do not.

    Of those that they want, they would apply to one and save two, and they ignore the others.
    """
    rng, kinds = np.random.default_rng(seed), jobs // 10
    families = np.arange(jobs) % kinds
    centres = rng.standard_normal((kinds, BLOCK_DIM)) / BLOCK_DIM**0.5
    drawn = np.stack([rng.choice(kinds, 6, replace=False) for _ in range(applicants)])
    worth = np.full((applicants, kinds), LABEL_VALUES["IGNORE"])
    np.put_along_axis(worth, drawn[:, :3], [LABEL_VALUES[label] for label in ("APPLY", "SAVE", "SAVE")], 1)

    def near(of: Array) -> FloatArray:
        spread: FloatArray = (of + SPREAD * rng.standard_normal(of.shape) / BLOCK_DIM**0.5).astype(np.float32)
        return spread

    job_ids, names = [f"j{i}" for i in range(jobs)], [f"p{i}" for i in range(applicants)]
    with open_store(folder, create=True) as store:
        store.put_meta(layout="extended")
        store.put_records("job", (Job(id=id_, title=id_) for id_ in job_ids))
        store.put_records("candidate", (Candidate(id=id_, bio=id_) for id_ in names))
        store.put_vectors("job", job_ids, {block: near(centres[families]) for block in EXTENDED.action}, job_ids)
        mixed = centres[drawn].sum(1)
        store.put_vectors("candidate", names, {block: near(mixed) for block in EXTENDED.state}, names)
        cache = TensorCache.copy_from_database(store)
    embedding = job_embedding(cache).double().numpy()
    order = [cache.job_index(id_) for id_ in job_ids]
    of_rows = np.empty(jobs, np.int64)
    of_rows[order] = families
    return Market(cache, names, worth[:, of_rows], embedding, similar_rewards(embedding), of_rows)


def next_items(market: Market, person: PersonConfig, sessions: int, start: int, seed: int = 0) -> dict[str, Array]:
    """nDCG@10 of the next positive job, `[applicants]` for each of RANKINGS, NaN for whom there is none."""
    people = People(person, market.applicants, market.families, market.similar, seed)
    made = agents(market, people, sessions, seed, PlanConfig(), market.families)
    compared = {name: made[name]() for name in COMPARED_AGENTS}
    cosines = np.stack([market.cache.calculate_cosine_similarities(name) for name in market.applicants]).astype(
        np.float64
    )
    rng, rows = np.random.default_rng([seed, 7]), np.arange(len(market.applicants))
    found = {name: np.full((len(rows), sessions), np.nan) for name in RANKINGS}
    for session in range(sessions):
        offered = people.open
        lists = logged_lists(cosines, offered, rng)
        rewards = np.stack([people.look(jobs, market.base[rows, jobs]) for jobs in lists.T], axis=1)
        told = nearest_event(rewards)
        if session >= start:
            after = first_positive(lists, told)
            left = sessions - session - 1
            ranked = {name: agent.propose(offered, RANKED, left) for name, agent in compared.items()}
            ranked["its list"] = ranked["history"]
            ranked["history"] = by_reward_now(compared["history"], market.families, offered)
            for name, jobs in ranked.items():
                found[name][:, session] = np.where(after == NO_JOB, np.nan, gains(jobs, after))
        unseen = people.open
        gaps = people.end_session()
        for agent in compared.values():
            agent.observe(lists, told, gaps, unseen, people.open)
    means = {}
    for name, values in found.items():
        known = ~np.isnan(values)
        total, count = np.where(known, values, 0.0).sum(1), known.sum(1)
        means[name] = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
    return means


def by_reward_now(agent: Any, families: Indices, offered: Mask) -> Indices:
    """The RANKED open jobs of which a `SequentialAgents` expects most now, `[people, RANKED]`."""
    return best_open(agent.dynamics().rewards(agent.base, families), offered, RANKED)


def logged_lists(cosines: Array, offered: Mask, rng: np.random.Generator) -> Indices:
    """Lists of LIST_SIZE jobs drawn around the cosine's ranking of the open jobs, `[people, LIST_SIZE]`."""
    lists = np.full((len(cosines), LIST_SIZE), NO_JOB)
    for person, order in enumerate(np.argsort(-np.where(offered, cosines, -np.inf), axis=1, kind="stable")):
        left = [str(job) for job in order if offered[person, job]]
        jobs, _ = explore(left, LIST_SIZE, rng, LOG_SHARPNESS)
        lists[person, : len(jobs)] = list(map(int, jobs))
    return lists


def nearest_event(rewards: Array) -> Array:
    """What the event is worth that is nearest to each reward, `[people, size]`; NaN stays NaN."""
    values = np.array(sorted(LABEL_VALUES.values()))
    nearest = values[np.abs(np.nan_to_num(rewards)[..., None] - values).argmin(-1)]
    return np.where(np.isnan(rewards), np.nan, nearest)


def first_positive(lists: Indices, told: Array) -> Indices:
    """The first job of each list that was applied to or saved, `[people]`, NO_JOB if none was."""
    positive = np.nan_to_num(told) >= POSITIVE
    first = lists[np.arange(len(lists)), positive.argmax(1)]
    return np.where(positive.any(1), first, NO_JOB)


def gains(ranked: Indices, after: Indices) -> Array:
    """nDCG of rankings `[people, n]` with one relevant job each, `[people]`."""
    hits = (ranked == after[:, None]) & (after[:, None] != NO_JOB)
    gained: Array = (hits / np.log2(np.arange(2, ranked.shape[1] + 2))).sum(1)
    return gained


def table(results: dict[str, dict[str, Array]]) -> str:
    """The figures as Markdown. results: of each dynamic, what `next_items` gives."""
    names = [AGENT_NAMES.get(name, name) for name in RANKINGS]
    differences = [f"{a} - {b}" for a, b in RANKING_PAIRS]
    lines = [
        f"| dynamics | {' | '.join([*names, *differences])} |",
        "|---|" + "--:|" * (len(names) + len(RANKING_PAIRS)),
    ]
    for dynamic, found in results.items():
        cells = [f"{interval(found[name]).mean:.3f}" for name in RANKINGS]
        for a, b in RANKING_PAIRS:
            apart = paired_difference(found[a], found[b]).interval
            cells.append(f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]")
        lines.append(f"| {dynamic} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("data/esco-sequence"), help="where the market is kept")
    parser.add_argument("--jobs", type=int, default=0, help="of a synthetic market; 0 is ESCO")
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--from", type=int, default=4, dest="start", help="first session that is ranked for")
    parser.add_argument("--dynamics", default="none,satiation,drift,together")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if args.jobs:
            market = synthetic(Path(folder) / "store", args.jobs, args.applicants)
        else:
            market = load(args.store, 0, slice(args.applicants))
    results = {}
    for dynamic in args.dynamics.split(","):
        which = {"none": (), "together": DYNAMICS}.get(dynamic, (dynamic,))
        results[dynamic] = next_items(market, PEOPLE.only(*which), args.sessions, args.start)
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
