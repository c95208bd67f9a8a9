"""Runs side by side and how an agent learned: the run that serves, those before it, and the trials beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
from cachetools import LRUCache

from dynaq.errors import DynaqError
from dynaq.runs.folder import CONFIG, METRICS, RunFolder
from dynaq.runs.q_table import ServedRun, served_run_id
from recommend_service.applicant_ranking import Ranker
from recommend_service.catalogue import Catalogue
from recommend_service.config import RecommendConfig
from recommend_service.problems import Problem
from recommend_service.rights import served_folders
from recommend_service.view_schemas import LearningCurve, LearningPoint, RunShown

SIMILARITY_RUN = "similarity"  # in place of a run's id: the ranking without an agent
OPEN = 4  # runs whose rankers are kept
CACHED = 16  # rankings kept of each


class RunViews:
    """Opens runs to look at. Its methods read files, so call them in a thread; threads may share it."""

    def __init__(self, config: RecommendConfig) -> None:
        self._config = config
        self._rankers: LRUCache[tuple[str, str], Ranker] = LRUCache(OPEN)
        self._lock = threading.Lock()

    def runs(self, serves: str | None) -> list[RunShown]:
        """The runs there are to look at. serves: id of the one that serves."""
        found = [_shown(run_id, uri, run_id == serves) for run_id, uri in self._known().items()]
        similar = RunShown(
            run_id=SIMILARITY_RUN, name=SIMILARITY_RUN, strategy=None, judge=None, started=None, serves=not serves
        )
        return [*sorted(found, key=lambda run: not run.serves), similar]

    def ranker(self, run_id: str, catalogue: Catalogue, serving: Ranker) -> Ranker:
        """Ranks by a run. serving: the ranker in use. Raises Problem for an unknown run or one that cannot be read."""
        if serving.catalogue is catalogue and run_id == (serving.run.run_id if serving.run else SIMILARITY_RUN):
            return serving
        with self._lock:
            key = (run_id, catalogue.digest)
            if key not in self._rankers:
                run = None if run_id == SIMILARITY_RUN else self.open(run_id)
                try:
                    self._rankers[key] = Ranker(catalogue, run, CACHED)
                except DynaqError as error:
                    raise Problem(409, "unusable-run", str(error)) from error
            return self._rankers[key]

    def open(self, run_id: str) -> ServedRun:
        """A run by its id. Raises Problem."""
        uri = self._known().get(run_id)
        if uri is None:
            raise Problem(404, "unknown-run", f"run {run_id!r} is none of those that GET /v1/runs lists")
        try:
            return ServedRun.open(uri)
        except DynaqError as error:
            raise Problem(409, "unusable-run", str(error)) from error

    def forget(self) -> None:
        """Drop the rankings in memory, with the catalogues that they are of."""
        with self._lock:
            self._rankers.clear()

    def _known(self) -> dict[str, str]:
        """Run id -> URI of its folder."""
        found: dict[str, str] = {}
        for uri in served_folders(self._config):
            for one in (*_beside(uri), uri):  # a comparison goes by its best trial
                try:
                    found.setdefault(served_run_id(one), one)
                except DynaqError:  # not finished, or broken
                    continue
        return found


def _beside(uri: str) -> list[str]:
    """The trials of the comparison that a run is, or is one of."""
    path, mark, query = uri.partition("?")
    for place in (path.rstrip("/"), path.rstrip("/").rpartition("/")[0]):
        folder = RunFolder.at(f"{place}{mark}{query}")
        config = folder.read_yaml(CONFIG) if place and folder.exists(CONFIG) else None
        if isinstance(config, dict) and config.get("trials"):
            return [folder.child(str(name)).uri for name in config["trials"]]
    return []


def _shown(run_id: str, uri: str, serves: bool) -> RunShown:
    folder = RunFolder.at(uri)
    found = folder.read_yaml(CONFIG) if folder.exists(CONFIG) else None
    config: Mapping[str, Any] = found if isinstance(found, dict) else {}
    texts = {name: None if config.get(name) is None else str(config[name]) for name in ("strategy", "judge", "started")}
    return RunShown(run_id=run_id, name=folder.name, serves=serves, **texts)


def learning_curve(run: ServedRun | None, applicant_id: str) -> LearningCurve:
    """The rounds of an applicant's agent, from the run's metrics."""
    if run is None or not run.folder.exists(METRICS):
        return LearningCurve(run_id=run.run_id if run else None, points=[])
    rows = run.folder.dataset(METRICS).to_table(filter=pc.field("applicant_id") == applicant_id).to_pylist()
    rows.sort(key=lambda row: row["round"])
    return LearningCurve(run_id=run.run_id, points=[_point(row) for row in rows])


def _point(row: Mapping[str, Any]) -> LearningPoint:
    named = {"round": "round", "judgements": "judgements_used", "reward": "mean_reward"}
    known = {name: row[column] for name, column in named.items()}
    known |= {name: row.get(name) for name in ("judge_reward", "trust", "ndcg")}
    known |= {name: row.get(name) or 0 for name in ("applied", "saved", "clicked", "ignored")}
    # NaN is a number that is not known.
    return LearningPoint.model_validate({name: value if value == value else None for name, value in known.items()})
