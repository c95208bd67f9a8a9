"""Prometheus metrics of training and of the broker, through Ray: every node exports those of its processes.

Ray prefixes each name with `ray_`. `docs/dashboards.md` says where to scrape them, and `cluster/grafana/` has the
dashboard. The judge's metrics are in `reward_service.judge_metrics`.
"""

from __future__ import annotations

import math
import threading
import time
from functools import cache
from weakref import WeakSet

from ray.util.metrics import Counter, Gauge, Histogram

REFRESH_SECONDS = 1.0
DURATION_BUCKETS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


class SteadyGauge(Gauge):
    """A gauge that exports its last value for as long as its owner lives.

    Ray drops a gauge that was not set for two reports, so a queue of constant length would seem to vanish.
    """

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        super().__init__(name, description, tag_keys)
        self._last: dict[tuple[tuple[str, str], ...], float] = {}
        _steady.add(self)
        _keep_refreshing()

    def set(self, value: int | float | None, tags: dict[str, str] = {}) -> None:  # noqa: B006 - Ray's signature; never mutated
        """Remember and report a value."""
        if value is not None:
            self._last[tuple(tags.items())] = value
        super().set(value, tags)

    def again(self) -> None:
        """Report the last value of every combination of tags."""
        for tags, value in list(self._last.items()):
            super().set(value, dict(tags))


_steady: WeakSet[SteadyGauge] = WeakSet()


@cache
def _keep_refreshing() -> None:
    """Start the one thread that serves all gauges of this process."""
    threading.Thread(target=_refresh, name="steady-gauges", daemon=True).start()


def _refresh() -> None:
    while True:
        time.sleep(REFRESH_SECONDS)
        _report_again()


def _report_again() -> None:
    for gauge in list(_steady):  # not in the endless loop, where the variable would keep the last gauge alive
        gauge.again()


class BrokerMetrics:
    """Metrics of a broker. judge: fingerprint."""

    def __init__(self, judge: str) -> None:
        self._tags = {"judge": judge}
        self._judgements = Counter(
            "dynaq_judgements_total",
            "Pairs answered to trainers; source is ledger (free) or judge (paid).",
            tag_keys=("judge", "source"),
        )
        self._abstentions = Counter(
            "dynaq_abstentions_total", "Pairs on which the judge abstained.", tag_keys=("judge",)
        )
        self._waiting = SteadyGauge("dynaq_broker_pairs_waiting", "Pairs that wait for the judge's answer.", ("judge",))
        self._seconds = Histogram(
            "dynaq_broker_ask_seconds",
            "From asking the judge about one applicant's slate until its answers are in the ledger.",
            boundaries=DURATION_BUCKETS,
            tag_keys=("judge",),
        )

    def from_ledger(self, pairs: int) -> None:
        """Count pairs that the ledger answered."""
        if pairs:
            self._judgements.inc(pairs, self._tags | {"source": "ledger"})

    def from_judge(self, pairs: int, abstained: int, seconds: float) -> None:
        """Count one answer of the judge: its pairs, the abstentions among them, and its seconds."""
        self._judgements.inc(pairs, self._tags | {"source": "judge"})
        if abstained:
            self._abstentions.inc(abstained, self._tags)
        self._seconds.observe(seconds, self._tags)

    def waiting(self, pairs: int) -> None:
        """Show how many pairs wait for the judge."""
        self._waiting.set(pairs, self._tags)


class BlockMetrics:
    """Metrics of a training actor. strategy: of its run."""

    def __init__(self, strategy: str) -> None:
        self._tags = {"strategy": strategy}
        self._rounds = Histogram(
            "dynaq_round_seconds",
            "One round of a block of agents: acting, the judge's answers, learning, planning.",
            boundaries=DURATION_BUCKETS,
            tag_keys=("strategy",),
        )
        self._used = Counter(
            "dynaq_judgements_used_total", "Pairs that agents spent of their budgets.", tag_keys=("strategy",)
        )

    def round_done(self, seconds: float, judgements: int) -> None:
        """Count a round: its seconds and the judgements that it used."""
        self._rounds.observe(seconds, self._tags)
        if judgements > 0:
            self._used.inc(judgements, self._tags)


class RunMetrics:
    """Progress of a run, exported by its driver. run: name of its folder."""

    def __init__(self, run: str, strategy: str) -> None:
        self._tags = {"run": run, "strategy": strategy}
        keys = tuple(self._tags)
        self._applicants = SteadyGauge("dynaq_applicants", "Applicants by state: done or left.", (*keys, "state"))
        self._blocks = SteadyGauge("dynaq_blocks", "Blocks of agents by state: running or waiting.", (*keys, "state"))
        self._reward = SteadyGauge("dynaq_mean_reward", "Mean reward of the newest slates.", keys)
        self._ndcg = SteadyGauge("dynaq_ndcg", "Mean nDCG@10 of the rankings, where relevance is known.", keys)
        self._trust = SteadyGauge("dynaq_judge_trust", "How far agents believe the judge, 0 to 1 (Youden's J).", keys)
        self._deaths = Counter("dynaq_actor_deaths_total", "Training actors that died and were replaced.", keys)

    def progress(self, done: int, left: int, reward: float, ndcg: float, trust: float = math.nan) -> None:
        """Show applicants done and left, mean reward and nDCG; NaN while unknown."""
        self._applicants.set(done, self._tags | {"state": "done"})
        self._applicants.set(left, self._tags | {"state": "left"})
        for gauge, value in ((self._reward, reward), (self._ndcg, ndcg), (self._trust, trust)):
            if not math.isnan(value):
                gauge.set(value, self._tags)

    def queue(self, running: int, waiting: int) -> None:
        """Show blocks that train and blocks that wait for an actor."""
        self._blocks.set(running, self._tags | {"state": "running"})
        self._blocks.set(waiting, self._tags | {"state": "waiting"})

    def actor_died(self) -> None:
        """Count an actor that died."""
        self._deaths.inc(1, self._tags)
