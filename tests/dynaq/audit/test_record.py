"""When an audit fails, and of which run it is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from dynaq.audit.record import AUDIT_FORMAT, AUDIT_RECORD, check_audit, failures, finding
from dynaq.errors import InputError

NOTHING = {"mean": 0.0, "low": 0.0, "high": 0.0, "found": False, "detectable": 0.02}
EQUAL = {"mean": 1.0, "low": 0.9, "high": 1.1, "found": False, "other": 0.5, "reference": 0.5, "detectable": 0.9}
LOW = {**EQUAL, "mean": 0.7, "low": 0.6, "high": 0.79, "found": True}
HIT = {"mean": -0.1, "low": -0.15, "high": -0.05, "found": True, "detectable": 0.02}


def record(**changes: Any) -> dict[str, Any]:
    """A record of one passed contrast."""
    contrast = {
        "name": "b − a",
        "decides": True,
        "identical": True,
        "texts_differ": 0.0,
        "reward": NOTHING,
        "impact": EQUAL,
        "lists": {"agents": {"expected": NOTHING}, "similarity": {"expected": None}},
    }
    contrast |= {key: value for key, value in changes.items() if key in contrast}
    setting = {"served": changes.get("served", True), "redacted": changes.get("redacted", True)}
    return {
        "format": AUDIT_FORMAT,
        "run_id": "run-1",
        "judge_fingerprint": "j",
        "settings": [setting | {"contrasts": [contrast]}],
        "groups": changes.get("groups"),
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identical": False, "texts_differ": 0.5}, "leaves a difference in 50% of the texts"),
        ({"reward": HIT}, "the judge's reward differs by -0.100 (-0.150 to -0.050)"),
        ({"lists": {"agents": {"expected": HIT}}}, "what agents expect of their lists differs"),
        ({"impact": LOW}, "impact ratio 0.70 (0.60 to 0.79) is below 0.8"),
    ],
)
def test_what_makes_an_audit_fail(changes: dict[str, Any], said: str) -> None:
    assert failures(record()) == []
    [reason] = failures(record(**changes))
    assert said in reason
    assert failures(record(**changes, decides=False)) == []
    assert failures(record(**changes, served=False)) == []


def test_other_texts_are_no_failure_where_personal_data_is_kept() -> None:
    assert failures(record(identical=False, texts_differ=1.0, redacted=False)) == []


def test_a_ratio_that_chance_may_explain_is_no_failure() -> None:
    assert failures(record(impact={**LOW, "found": False, "high": 1.05})) == []
    assert failures(record(impact=LOW), line=0.6) == []


def test_groups_decide_too() -> None:
    group = {"name": "f", "selection_impact": LOW, "scoring_impact": None, "exposure_impact": EQUAL}
    [reason] = failures(record(groups=[{"attribute": "sex", "groups": [group]}]))
    assert reason.startswith("sex f: selection rate, impact ratio 0.70")


def test_no_difference_found_says_what_would_have_been() -> None:
    contrast = record(identical=False)["settings"][0]["contrasts"][0]
    assert "one of 0.020 would have been found with a probability of 90%" in finding(contrast)
    contrast["reward"] = HIT
    assert "differs by -0.100" in finding(contrast)
    contrast["reward"] = dict.fromkeys(HIT)
    assert "nothing can be said" in finding(contrast)
    contrast["identical"] = True
    assert "the same" in finding(contrast)


def test_an_audit_must_be_of_the_run_and_passed(tmp_path: Path) -> None:
    def check(content: dict[str, Any], run_id: str = "run-1", judge: str = "j", line: float = 0.8) -> None:
        (tmp_path / AUDIT_RECORD).write_text(json.dumps(content))
        check_audit(str(tmp_path), run_id, judge, line)

    with pytest.raises(InputError, match=r"holds no audit\.json"):
        check_audit(str(tmp_path), "run-1", "j", 0.8)
    check(record())
    with pytest.raises(InputError, match="of run run-1, not of run-2"):
        check(record(), run_id="run-2")
    with pytest.raises(InputError, match="of judge j, not of k"):
        check(record(), judge="k")
    with pytest.raises(InputError, match=r"is below 0\.8"):
        check(record(impact=LOW))
    check(record(impact=LOW), line=0.65)
    with pytest.raises(InputError, match="of a judge alone"):
        check({**copy.deepcopy(record()), "run_id": None})
    with pytest.raises(InputError, match="another version"):
        check({**record(), "format": 99})
