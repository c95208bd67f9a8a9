"""The metrics of /metrics, in a registry of their own."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.3, 1.0, 3.0)


class Metrics:
    """Prometheus metrics of the service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("recommend_requests_total", "Calls.", ["route", "status"], **kept)
        self.seconds = Histogram(
            "recommend_request_seconds", "Time of a call.", ["route"], buckets=SECONDS_BUCKETS, **kept
        )
        self.lists = Counter("recommend_lists_total", "Lists shown, by source of the ranking.", ["source"], **kept)
        self.events = Counter("recommend_feedback_total", "Events taken.", ["event"], **kept)
        self.refused = Gauge("recommend_refused_runs", "Runs that were not taken over.", **kept)
        self.run = Gauge("recommend_run_info", "The run whose agents rank.", ["run_id"], **kept)
        self.jobs = Gauge("recommend_catalogue_jobs", "Jobs of the catalogue.", **kept)
        self.cached = Gauge("recommend_cached_agents", "Agents whose ranking is in memory.", **kept)
        self.hits = Gauge("recommend_cache_hits", "Lists from memory since the run was taken over.", **kept)
        self.misses = Gauge("recommend_cache_misses", "Lists read from disk since the run was taken over.", **kept)
        self.unreadable = Gauge("recommend_unreadable_agents", "Agents that could not be read since then.", **kept)
        self.waiting = Gauge("recommend_waiting_writes", "Feedback and exposures waiting for the disk.", **kept)
        self.lost = Gauge("recommend_lost_exposures", "Exposures that could not be written.", **kept)

    def show_run(self, run_id: str | None) -> None:
        """Set the run that ranks, None for none."""
        self.run.clear()
        self.run.labels(run_id or "none").set(1)
