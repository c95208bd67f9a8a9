"""Files as strangers bring them: for each what is accepted, what is mended with which note, what is rejected why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynaq.errors import InputError
from dynaq.ingest import IngestReport, InputOptions, ingest_files
from dynaq.ingest.columns import parse_mappings
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store
from tests.support.embedders import HashEmbedder
from tests.support.messy_records import RECORDS
from tests.support.messy_tables import TABLES, Case

pytestmark = pytest.mark.slow  # each document is read in a process of its own

CASES = TABLES | RECORDS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store", create=True) as opened:
        yield opened


def _options(case: Case) -> InputOptions:
    given = dict(case.options or {})
    mappings = parse_mappings(given.pop("map", []), jobs=case.kind == "jobs", candidates=case.kind == "candidates")
    return InputOptions(mappings, **given)


def _ingest(store: Store, path: Path, case: Case) -> IngestReport:
    files = {case.kind: [path]}
    return ingest_files(store, **files, encoder=HashEmbedder(), options=_options(case))  # type: ignore[arg-type]


def test_there_are_at_least_sixty_cases() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_a_messy_file_has_its_outcome(store: Store, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path = tmp_path / case.name
    if callable(case.content):
        case.content(path)
    else:
        path.write_bytes(case.content.encode() if isinstance(case.content, str) else case.content)
    if case.counts is None:
        with pytest.raises(InputError, match=f"(?s){case.says}"):
            _ingest(store, path, case)
        assert (store.ids("job"), store.ids("candidate"), store.meta()) == ([], [], {})
        assert not (tmp_path / "rejected.jsonl").exists()
        return
    report = _ingest(store, path, case)
    counts = report.jobs if case.kind == "jobs" else report.candidates
    reasons = [group.example.reason for group in report.groups]
    said = [*report.notes, *(note for note, _ in report.mended), *reasons]
    assert (counts.accepted, counts.mended, counts.rejected) == case.counts, said
    assert case.says in "\n".join(said)
    records: list[Job | Candidate] = [*(store.records("job") if case.kind == "jobs" else store.records("candidate"))]
    assert len(records) == (case.counts[0] if case.total is None else case.total)
    if case.first is not None:
        shown = json.loads(json.dumps({k: getattr(records[0], k) for k in case.first}, default=list))
        assert shown == json.loads(json.dumps(case.first, default=list))
    for record in records:
        text = record.description if isinstance(record, Job) else record.bio
        assert len(text) <= 100_000
        assert "<script" not in text
