"""The page of an audit, in the style of a run's report: it stands alone and holds no script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynaq.audit.attributes import PLACEBO
from dynaq.evaluation.run_quality import K
from dynaq.runs.folder import RunFolder
from jobs.reporting.page import page_environment, settings_rows

AUDIT_PAGE = "audit.html"


def write_audit_page(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Render the record of an audit into its folder."""
    page = (
        page_environment()
        .get_template("audit.html.j2")
        .render(
            title="Does it treat people alike?",
            story=_story(record),
            facts=_facts(record),
            reasons=record["reasons"],
            audited=record["settings"],
            postings=record["postings"],
            groups=record["groups"],
            certainty=record["certainty"],
            placebo=PLACEBO.capitalize(),
            smallest=record["smallest_group"],
            sampling=record["sampling"],
            max_impact=record["max_impact"],
            power_words=power_words(record),
            sources=record["sources"],
            run=settings_rows({name: record[name] for name in _SHOWN} | {"inputs": _inputs(record)}),
            config=settings_rows(record["config"]),
            environment=settings_rows(record["environment"]),
            k=K,
        )
    )
    folder.write_bytes(AUDIT_PAGE, page.encode())


_SHOWN = (
    *("run", "run_id", "store", "judge", "judge_fingerprint", "judge_model", "encoder", "layout", "jobs", "strategy"),
    *("profiles", "pairs_per_profile", "seed", "made", "seconds"),
)


def _inputs(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{one['file']} {one['sha256'][:12]}" if one else "–" for name, one in record["inputs"].items()}


def power_words(record: Mapping[str, Any]) -> str:
    """What an audit of this size finds, measured on judges of known bias."""
    planted = record["self_test"]
    size = f"{planted['profiles']} profiles with {planted['jobs']} jobs each"
    return (
        f"On simulated judges, an audit of this size ({size}) found a planted bias of {abs(planted['bias']):g} in the "
        f"reward in {planted['power']:.0%} of {planted['audits']} cases, and failed {planted['false_alarms']:.1%} of "
        "as many fair judges. "
        f"{'' if planted['power'] >= record['power'] else 'It is too small to be relied on: take more profiles. '}"
        "A comparison without a finding names the difference that it would have found; smaller ones may be there."
    )


def _story(record: Mapping[str, Any]) -> str:
    what = f"Run {record['run']}" if record["run"] else "The judge"
    if record["passed"]:
        return f"{what} passes this audit: nothing that is served differs credibly by what was tested."
    return f"{what} fails this audit in {len(record['reasons'])} points."


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    served = next(one for one in record["settings"] if one["served"])
    return [
        ("result", "passed" if record["passed"] else "failed"),
        ("judge", str(record["judge_model"] or record["judge"] or "none")),
        ("profiles", f"{record['profiles']}, {record['pairs_per_profile']} jobs each"),
        ("jobs", f"{record['jobs']:,}"),
        ("served with", served["name"]),
        ("made", str(record["made"]).replace("T", " ").removesuffix("+00:00") + " UTC"),
    ]
