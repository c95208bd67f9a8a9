"""Reading run folders: one run, or a comparison whose trials are run folders inside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynaq.errors import InputError
from dynaq.runs.folder import CONFIG, METRICS, RECOMMENDATIONS, RunFolder
from dynaq.stores import Store, open_store

SAMPLE = 2000  # applicants of a large run, evenly from its cohort, of whom metrics and lists are read


@dataclass(frozen=True)
class Run:
    """One finished training run."""

    name: str
    folder: RunFolder
    config: dict[str, Any]

    @cached_property
    def applicants(self) -> int:
        """Number of applicants with a list."""
        return len(self._listed) if self.sampled else len(self.ranked)

    @cached_property
    def sampled(self) -> bool:
        """Whether `metrics` and `ranked` are of SAMPLE applicants, as in large runs, whose tables are in parts."""
        return self.folder.in_parts(RECOMMENDATIONS) and len(self._listed) > SAMPLE

    @property
    def sampling(self) -> str:
        """What figures of a sample have to say about themselves; "" where they are of everyone."""
        if not self.sampled:
            return ""
        return f"Figures and curves are of {len(self.ranked):,} of the {self.applicants:,} applicants, evenly drawn."

    @cached_property
    def metrics(self) -> pa.Table:
        """A row per applicant and round."""
        return self._of_sample(METRICS)

    @cached_property
    def ranked(self) -> dict[str, list[tuple[str, float]]]:
        """Applicant -> (job, Q-value), best first."""
        return _ranked(self._of_sample(RECOMMENDATIONS))

    @cached_property
    def _listed(self) -> pa.ChunkedArray:
        """Ids of a large run's applicants, in its order."""
        first = pc.field("rank") == 1
        return self.folder.dataset(RECOMMENDATIONS).to_table(columns=["applicant_id"], filter=first).column(0)

    def _of_sample(self, name: str) -> pa.Table:
        if not self.sampled:
            return self.folder.read_table(name)
        chosen = self._listed.take(np.linspace(0, len(self._listed) - 1, SAMPLE).astype(np.int64))
        return self.folder.dataset(name).to_table(filter=pc.field("applicant_id").isin(chosen.combine_chunks()))

    @cached_property
    def judgements_per_applicant(self) -> float:
        """Number of distinct pairs that each agent had judged, averaged over applicants."""
        spent: dict[str, int] = {}
        if self.metrics.num_rows:
            columns = (self.metrics.column(name).to_pylist() for name in ("applicant_id", "judgements_used"))
            for applicant_id, used in zip(*columns, strict=True):
                spent[applicant_id] = max(used, spent.get(applicant_id, 0))
        return sum(spent.values()) / len(spent) if spent else 0.0

    def jobs_for(self, applicant_id: str, k: int) -> list[tuple[str, float]]:
        """The first k (job, Q-value). Raises InputError when the run has none for the applicant."""
        ranked = self.ranked
        if self.sampled:
            only = pc.field("applicant_id") == applicant_id
            ranked = _ranked(self.folder.dataset(RECOMMENDATIONS).to_table(filter=only))
        if applicant_id not in ranked:
            raise InputError(
                f"applicant {applicant_id!r} is not among the {self.applicants} of run {self.folder.uri!r}"
            )
        return ranked[applicant_id][:k]


def _ranked(table: pa.Table) -> dict[str, list[tuple[str, float]]]:
    ranked: dict[str, list[tuple[str, float]]] = {}
    columns = (table.column(name).to_pylist() for name in ("applicant_id", "rank", "job_id", "q_value"))
    for applicant_id, _, job_id, q in sorted(zip(*columns, strict=True), key=lambda row: row[1]):
        ranked.setdefault(applicant_id, []).append((job_id, q))
    order = dict.fromkeys(table.column("applicant_id").to_pylist())
    return {applicant_id: ranked[applicant_id] for applicant_id in order}


def read_runs(directory: str) -> list[Run]:
    """The run in a folder, or all trials of a comparison, best first. Raises InputError if it holds neither."""
    folder = RunFolder.at(directory)
    if not folder.exists(CONFIG):
        raise InputError(f"{directory!r} is not a run folder: it has no {CONFIG}; name the --out of a train or tune")
    config = folder.read_yaml(CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"{CONFIG} in {directory!r} is not the configuration of a run")
    if "trials" not in config:
        return [_read_run(config["strategy"], folder, config)]
    names = sorted(config["trials"], key=lambda name: name != config.get("best"))
    if not names:
        raise InputError(f"comparison {folder.uri!r} is not finished; continue it with the same command and --resume")
    children = [(name, RunFolder.at(folder.child(name).uri)) for name in names]
    return [_read_run(name, child, child.read_yaml(CONFIG)) for name, child in children]


def _read_run(name: str, folder: RunFolder, config: dict[str, Any]) -> Run:
    if not folder.exists(RECOMMENDATIONS):
        raise InputError(f"run {folder.uri!r} is not finished; continue it with the same command and --resume")
    return Run(name, folder, config)


def open_run_store(run: Run, store: str | None = None) -> Store:
    """The store a run was trained on; pass `store` if it has moved or its URI holds credentials.

    Raises InputError, which suggests --store, when it cannot be opened.
    """
    if store is not None:
        return open_store(store, read_only=True)
    try:
        return open_store(_recorded_store(run), read_only=True)
    except InputError as error:
        raise InputError(
            f"{error}; run {run.folder.uri!r} was trained on it: say where it is now with --store"
        ) from error


def _recorded_store(run: Run) -> str:
    """The store in the run's configuration.

    Older versions wrote a path as the user gave it: it is looked for from here, and from the run's folder upwards.
    """
    recorded: str = run.config["store"]
    if "://" in recorded or run.folder.local is None:
        return recorded
    places = [Path(), *run.folder.local.parents]
    return next((str(place / recorded) for place in places if (place / recorded).is_dir()), recorded)
