"""Everything that is held about one applicant, as one structure that a person can read and a program can, too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from dynaq.errors import InputError
from dynaq.layout import CANDIDATE_BLOCKS
from dynaq.rights.forgetting import networks_in, runs_in
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.runs.q_table import SERVING, ServedRun
from dynaq.stores import FeedbackStore, Store

MEANING = {
    "profile": "what you told about yourself, as it is stored",
    "vectors": "your profile as numbers, made by a language model; jobs with similar numbers count as similar to you",
    "judgements": "a language model's guesses of how you would answer to a job: apply, save, click or ignore",
    "relevance": "how well jobs were graded to fit you by whoever supplied grades",
    "feedback": "what you did with jobs that you were shown",
    "exposures": "the lists that you were shown, with the probability of each job at its place",
    "decisions": "jobs that a person at the operator blocked or pinned for you, and why",
    "runs": "what was learned for you and recommended to you; q_values is how much your agent expects of each job",
    "networks": "networks that were fitted on judgements about you among those about others",
}


class NothingHeld(InputError):
    """Nothing is held about the applicant."""


def export_person(
    store: Store, applicant_id: str, folders: Sequence[str] = (), events: FeedbackStore | None = None
) -> dict[str, Any]:
    """All that a store and folders of runs hold about an applicant; dates are ISO texts.

    Args:
        store: may be read-only.
        applicant_id: whose data.
        folders: as of `dynaq.rights.forgetting.forget_in_folder`.
        events: who reads the store's events, if not the store itself.

    Raises NothingHeld, and InputError for a folder that is not there or a broken run.
    """
    own, told = [applicant_id], events or store
    judged = store.judgements(applicants=own).to_pylist()
    runs = [run for folder in runs_in(folders) if (run := _run(folder, applicant_id))]
    qrels = store.qrels()
    found: dict[str, Any] = {
        "profile": [record.model_dump(mode="json") for record in store.records("candidate", own)],
        "vectors": _vectors(store, applicant_id),
        "judgements": judged,
        "relevance": dict(qrels.grades(applicant_id)) if qrels else {},
        "feedback": told.feedback(own).to_pylist(),
        "exposures": told.exposures(own).to_pylist(),
        "decisions": told.decisions(own).to_pylist(),
        "runs": runs,
        "networks": [one.uri for one, record in networks_in(folders) if applicant_id in record["applicants"]],
    }
    if not any(found.values()):
        raise NothingHeld(f"nothing is held about applicant {applicant_id!r} in store {store.uri} or the folders named")
    return {
        "applicant_id": applicant_id,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "meaning": MEANING,
        **_plain(found),
        "job_titles": _titles(store, found),
    }


def _vectors(store: Store, applicant_id: str) -> dict[str, list[float]]:
    names = list(CANDIDATE_BLOCKS)
    batches = store.vectors("candidate", names, ids=[applicant_id], optional=names)
    return {name: block[0].tolist() for batch in batches for name, block in batch.blocks.items() if len(block)}


def _run(folder: RunFolder, applicant_id: str) -> dict[str, Any]:
    """What one run folder holds about the applicant; empty if nothing."""
    tables = {}
    for name in folder.names():
        if PurePosixPath(name).suffix == ".parquet":
            table = folder.dataset(name)
            if "applicant_id" in table.schema.names:
                tables[name] = table.to_table(filter=ds.field("applicant_id") == applicant_id).to_pylist()
    served = ServedRun.open(folder.uri) if folder.exists(SERVING) else None
    q_values: dict[str, Any] = {}
    if served and (known := served.q_values(applicant_id)):
        q_values = {served.job_ids[column]: q for column, q in zip(*known, strict=True)}
    if not q_values and not any(tables.values()):
        return {}
    config = folder.read_yaml(CONFIG) if folder.exists(CONFIG) else {}
    return {
        "folder": folder.uri,
        "strategy": config.get("strategy"),
        "judge": config.get("judge_fingerprint"),
        "started": config.get("started"),
        **{PurePosixPath(name).stem: rows for name, rows in tables.items() if rows},
        "q_values": q_values,
    }


def _titles(store: Store, found: dict[str, Any]) -> dict[str, str]:
    """Titles of the jobs that rows name, so that the ids can be read."""
    rows = [*found["judgements"], *found["feedback"], *found["decisions"]]
    rows += [row for run in found["runs"] for row in run.get("recommendations", ())]
    named = {row["job_id"] for row in rows} | {job_id for row in found["exposures"] for job_id in row["job_ids"]}
    return {job.id: job.title for job in store.records("job", sorted(named))} if named else {}


def _plain(content: Any) -> Any:
    """Dates as ISO texts, numbers as Python's, unknown numbers as null: what JSON can say."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    if isinstance(content, datetime):
        return content.isoformat()
    if isinstance(content, (np.floating, float)):
        return float(content) if np.isfinite(content) else None
    return content
