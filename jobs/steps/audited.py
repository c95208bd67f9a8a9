"""What an audit is about: a run, or a store with a judge; and the profiles, attributes and groups to audit it with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynaq.agent.config import DynaQConfig
from dynaq.audit.attributes import ATTRIBUTES, Attribute, Contrast, contrasts_of, own_names
from dynaq.errors import InputError
from dynaq.ingest.parse_records import parse_candidate
from dynaq.ingest.record_reader import InputOptions, RecordReader
from dynaq.ingest.report import RejectedRecords
from dynaq.judging.ledger_file import LEDGER
from dynaq.records import Candidate
from dynaq.runs.folder import CONFIG
from dynaq.runs.q_table import ServedRun
from dynaq.runs.reading import Run, open_run_store
from dynaq.stores import absolute, open_store
from jobs.steps.judge_backend import NO_JUDGE, VLLM


@dataclass(frozen=True)
class Audited:
    """The subject of an audit.

    Args:
        store_uri: as the user gave it, or as the run recorded it.
        judge: value of `--judge`; `none` for a run that learned from none.
        run, run_id: the run and its id; None for a judge alone.
        layout: of the run; None for the store's.
        config, strategy: of the agents to train on the judge's answers.
        recorded: whether the run learned from recorded judgements, whose judge the user has to name.
    """

    store_uri: str
    judge: str
    run: Run | None
    run_id: str | None
    layout: str | None
    config: DynaQConfig
    strategy: str
    recorded: bool


def audited(store: str | None, run: str | None, judge: str | None, config: str | None) -> Audited:
    """Read what is to be audited. Raises InputError without a store or run, and for a run whose judge is not known."""
    if run is None:
        if store is None:
            raise InputError("name what to audit: --run for a run, --store for a judge on a store's applicants")
        return Audited(store, judge or VLLM, None, None, None, DynaQConfig.load(config), "hybrid", recorded=False)
    served = ServedRun.open(run)
    found = Run(served.run_id, served.folder, served.folder.read_yaml(CONFIG))
    with open_run_store(found, store) as opened:
        uri = store or absolute(opened.uri)
    own = found.config.get("judge") if found.config.get("judge_fingerprint") else None
    recorded = bool(own) and str(own).startswith(LEDGER)
    if recorded and judge is None:
        raise InputError(
            f"run {served.folder.uri!r} learned from recorded judgements, which say nothing about other texts; name "
            "the judge that made them with --judge, or --judge none to audit the lists alone"
        )
    settings = found.config.get("config") or {}
    if config is not None:
        raise InputError("--config: a run is audited with its own settings; leave it out")
    return Audited(
        uri,
        judge or own or NO_JUDGE,
        found,
        served.run_id,
        found.config.get("layout"),
        DynaQConfig(**settings),
        str(found.config.get("strategy", "hybrid")),
        recorded,
    )


def check_judge(subject: Audited, fingerprint: str | None) -> None:
    """Raises InputError when a run is to be audited with another judge than its own."""
    if subject.run is None or subject.recorded:
        return
    own = subject.run.config.get("judge_fingerprint")
    if own != fingerprint:
        raise InputError(
            f"run {subject.run.folder.uri!r} learned from judge {own}, and --judge {subject.judge} is {fingerprint}; "
            "leave --judge out, or name the run's"
        )


def read_profiles(path: str) -> list[Candidate]:
    """Candidate records of a file without personal data, read as ingestion does. Raises InputError when it has none."""
    if not Path(path).is_file():
        raise InputError(f"profiles file {path} does not exist")
    rejected = RejectedRecords()
    reader = RecordReader("candidates", parse_candidate, rejected, InputOptions())
    found = [parsed.record for parsed in reader.read([Path(path)])]
    profiles = [record for record in found if isinstance(record, Candidate)]
    if not profiles:
        raise InputError(f"profiles file {path} has no usable candidate")
    return profiles


def attributes_of(names: str | None) -> tuple[tuple[Attribute, ...], tuple[Contrast, ...]]:
    """The packaged attributes and contrasts, and those of a names file."""
    if names is None:
        return ATTRIBUTES, contrasts_of(ATTRIBUTES)
    attribute, contrasts = own_names(names)
    return (*ATTRIBUTES, attribute), (*contrasts_of(ATTRIBUTES), *contrasts)


def digest(path: str | None) -> dict[str, Any] | None:
    """Name and checksum of an input file; None without one."""
    if path is None:
        return None
    return {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def stored_profiles(uri: str, ids: Sequence[str]) -> list[Candidate]:
    """The records of these applicants, in their order."""
    with open_store(uri, read_only=True) as store:
        found = {record.id: record for record in store.records("candidate", ids)}
    return [found[one] for one in ids if one in found]
