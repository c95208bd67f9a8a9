"""Prometheus metrics of one replica of the judge, through Ray; vLLM adds its own (tokens, cache, queue)."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Histogram

from cluster.metrics import SteadyGauge
from dynaq.judging.judgement import Judgement

MASS_BUCKETS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
SECONDS_BUCKETS = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


class ReplicaMetrics:
    """Metrics of one replica. The tag `judge` is the fingerprint of the judge or variant that answered."""

    def __init__(self) -> None:
        self._pairs = Counter(
            "dynaq_judge_pairs_total",
            "Pairs judged; outcome is apply, save, click, ignore or abstained.",
            tag_keys=("judge", "outcome"),
        )
        self._mass = Histogram(
            "dynaq_judge_label_mass",
            "Probability that the model gave to the four answers before they were made to sum to 1.",
            boundaries=MASS_BUCKETS,
            tag_keys=("judge",),
        )
        self._seconds = Histogram(
            "dynaq_judge_call_seconds",
            "One call: one applicant's slate.",
            boundaries=SECONDS_BUCKETS,
            tag_keys=("judge",),
        )
        self._pending = SteadyGauge("dynaq_judge_pending_pairs", "Pairs that this replica holds.")
        self._pending.set(0)

    def answered(self, judge: str, judgements: Sequence[Judgement], seconds: float) -> None:
        """Count a call's judgements by outcome, their label mass, and the call's seconds."""
        for judgement in judgements:
            self._pairs.inc(1, {"judge": judge, "outcome": (judgement.label or "abstained").lower()})
            if not judgement.abstained:
                self._mass.observe(judgement.label_mass, {"judge": judge})
        self._seconds.observe(seconds, {"judge": judge})

    def pending(self, pairs: int) -> None:
        """Show how many pairs the replica holds."""
        self._pending.set(pairs)
