"""A model card and a data sheet in Markdown, from what run, store and audit recorded about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dynaq.evaluation.run_quality import evaluate_run
from dynaq.languages import spelled
from dynaq.personal.redaction import PERSONAL_DATA, keeps_personal_data
from dynaq.runs.folder import RunFolder
from dynaq.runs.judgements import judged_pairs
from dynaq.runs.reading import Run
from dynaq.stores import Store, open_store
from jobs.reporting.audit_page import power_words
from jobs.reporting.page import page_environment
from jobs.steps.audited import Audited

MODEL_CARD, DATA_SHEET = "model_card.md", "data_sheet.md"


def write_cards(folder: RunFolder, subject: Audited, record: Mapping[str, Any]) -> list[str]:
    """Write the data sheet, and the model card of a run. Returns the names of the files."""
    with open_store(subject.store_uri, read_only=True) as store:
        _write(folder, DATA_SHEET, record=record, **_data(store))
        if subject.run is None:
            return [DATA_SHEET]
        _write(folder, MODEL_CARD, record=record, power_words=power_words(record), **_model(subject.run, store))
    return [MODEL_CARD, DATA_SHEET]


def _write(folder: RunFolder, name: str, **values: Any) -> None:
    environment = page_environment().overlay(autoescape=False)  # Markdown, which readers may turn into HTML themselves
    folder.write_bytes(name, environment.get_template(f"{name}.j2").render(**values).encode())


def _model(run: Run, store: Store) -> dict[str, Any]:
    quality = evaluate_run(run, judged_pairs(run, store), store.qrels()).quality
    known = {name: asdict(one) for name, one in quality.items() if one.mean == one.mean}
    fields = ("started", "applicants", "jobs", "judge", "judge_model", "judge_fingerprint", "layout")
    config = {name: run.config.get(name) for name in fields} | {"environment": run.config.get("environment") or {}}
    return {"config": config, "used": run.judgements_per_applicant, "quality": known}


def _data(store: Store) -> dict[str, Any]:
    meta, qrels = store.meta(), store.qrels()
    kept = keeps_personal_data(meta)
    return {
        "jobs": f"{len(store.ids('job')):,}",
        "applicants": f"{len(store.ids('candidate')):,}",
        "judgements": f"{store.judgements().num_rows:,}",
        "graded": f"{len(qrels):,}" if qrels else "none",
        "events": f"{store.feedback().num_rows:,}",
        "languages": {kind: spelled(meta.get("languages", {}).get(kind, {})) for kind in ("jobs", "candidates")},
        "personal": "kept, embedded and judged" if kept else "taken out before texts are embedded and judged",
        "attribution": meta.get("attribution", ""),
        "encoder": meta.get("encoder"),
        "preprocessing": (
            "Names, contacts, birth dates, nationalities and the like are taken out by rules (recall: docs/data.md)."
            if meta.get(PERSONAL_DATA) is not None and not kept
            else "Whether personal data was taken out is not recorded, or it was kept."
        ),
    }
