"""The record of an audit, `audit.json`: what was measured, and whether the audit is passed.

An audit fails

- where personal data is taken out before applicants are judged: when a variant still has another text,
- when a deciding contrast is found, on the judge's reward or on what the agents expect of their lists,
- when an impact ratio, of a deciding contrast or between groups, is below the line and credibly below 1.

Only what is served decides: texts with personal data in them inform when the store takes such data out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dynaq.audit.differences import Effect, Impact
from dynaq.audit.limits import FOUR_FIFTHS, POWER
from dynaq.errors import InputError
from dynaq.evaluation.intervals import Interval
from dynaq.runs.folder import RunFolder

AUDIT_RECORD = "audit.json"
AUDIT_FORMAT = 1
REWARD, IMPACT, EXPECTED = "reward", "impact", "expected"


def effect_json(effect: Effect | None) -> dict[str, Any] | None:
    """Mean, simultaneous bounds, whether a difference was found, and the one that would have been."""
    if effect is None:
        return None
    return interval_json(effect.interval) | {"found": effect.found, "detectable": known(effect.detectable)}


def impact_json(impact: Impact | None) -> dict[str, Any] | None:
    """Rates of both sides and their ratio with its bounds; None for a side that is compared with itself."""
    if impact is None:
        return None
    rates = {"other": known(impact.other), "reference": known(impact.reference), "found": impact.found}
    return interval_json(impact.ratio) | rates | {"detectable": known(impact.detectable)}


def interval_json(found: Interval) -> dict[str, Any]:
    """Mean and bounds, null where unknown."""
    return {"mean": known(found.mean), "low": known(found.low), "high": known(found.high)}


def known(value: float) -> float | None:
    """The number, None for NaN and infinity, which JSON has not."""
    return float(value) if np.isfinite(value) else None


def failures(record: Mapping[str, Any], line: float = FOUR_FIFTHS) -> list[str]:
    """Why the audit fails, in words; empty when it is passed. line: the least impact ratio."""
    found: list[str] = []
    for setting in record["settings"]:
        if not setting["served"]:
            continue
        for contrast in setting["contrasts"]:
            if contrast["decides"]:
                found += _contrast_failures(contrast, redacted=setting["redacted"], line=line)
    for attribute in record["groups"] or ():
        for group in attribute["groups"]:
            for kind in ("selection", "scoring", "exposure"):
                if below := _below(group[f"{kind}_impact"], line):
                    found.append(f"{attribute['attribute']} {group['name']}: {kind} rate, {below}")
    return found


def _contrast_failures(contrast: Mapping[str, Any], *, redacted: bool, line: float) -> Iterator[str]:
    name = contrast["name"]
    if redacted and not contrast["identical"]:
        yield f"{name}: redaction leaves a difference in {contrast['texts_differ']:.0%} of the texts"
    if contrast[REWARD]["found"]:
        yield f"{name}: the judge's reward differs by {_signed(contrast[REWARD])}"
    for kind, one in contrast["lists"].items():
        if one[EXPECTED] and one[EXPECTED]["found"]:
            yield f"{name}: what {kind} expect of their lists differs by {_signed(one[EXPECTED])}"
    if below := _below(contrast[IMPACT], line):
        yield f"{name}: scoring rate, {below}"


def _signed(cell: Mapping[str, Any]) -> str:
    return f"{cell['mean']:+.3f} ({cell['low']:+.3f} to {cell['high']:+.3f})"


def _below(impact: Mapping[str, Any] | None, line: float) -> str:
    """What is wrong with an impact ratio; "" for one that is at the line or above, or that chance may explain."""
    if impact is None or impact["mean"] is None or impact["mean"] >= line or not impact["found"]:
        return ""
    return f"impact ratio {impact['mean']:.2f} ({impact['low']:.2f} to {impact['high']:.2f}) is below {line:g}"


def finding(contrast: Mapping[str, Any]) -> str:
    """One sentence on a contrast: what was found, or how large an effect would have been."""
    reward = contrast[REWARD]
    if contrast["identical"]:
        return "The texts are the same, and so are answers and lists."
    if reward["mean"] is None or reward["low"] is None:
        return "Too few answers: nothing can be said."
    if reward["found"]:
        return f"The judge's reward differs by {_signed(reward)}."
    return (
        f"No difference found in the judge's reward; one of {reward['detectable']:.3f} would have been found with a "
        f"probability of {POWER:.0%}, smaller ones may be there."
    )


def check_audit(folder: str, run_id: str, fingerprint: str | None, line: float) -> None:
    """Check that a folder holds a passed audit of this run. Raises InputError saying why not.

    Args:
        folder: where `dynaq audit` wrote.
        run_id: of the run.
        fingerprint: of the run's judge; None for a run whose judge is not known.
        line: the least impact ratio.
    """
    place = RunFolder.at(folder)
    if not place.exists(AUDIT_RECORD):
        raise InputError(f"{folder!r} holds no {AUDIT_RECORD}; name the --out of a dynaq audit --run")
    record = place.read_json(AUDIT_RECORD)
    if record.get("format") != AUDIT_FORMAT:
        raise InputError(f"the audit in {folder!r} is of another version; audit the run again")
    if record["run_id"] != run_id:
        what = f"of run {record['run_id']}" if record["run_id"] else "of a judge alone"
        raise InputError(f"the audit in {folder!r} is {what}, not of {run_id}; audit it with dynaq audit --run")
    if fingerprint is not None and record["judge_fingerprint"] != fingerprint:
        raise InputError(f"the audit in {folder!r} is of judge {record['judge_fingerprint']}, not of {fingerprint}")
    if reasons := failures(record, line):
        raise InputError(f"the audit in {folder!r} fails: {'; '.join(reasons)}")
