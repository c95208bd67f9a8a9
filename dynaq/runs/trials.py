"""A trial of a comparison: its strategy and setting, and its outcome."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One strategy with a seed and changes to the config; its run folder is a subfolder of that name."""

    name: str
    strategy: str
    seed: int
    setting: dict[str, Any]


@dataclass(frozen=True)
class TrialResult:
    """The outcome of a trial.

    Args:
        status: done, stopped (by the scheduler) or failed.
        seconds: training time of the last session.
        per_second: judgements per second in the last session.
        judgements: pairs spent of the budgets.
        paid: pairs that the judge was asked about, because the ledger lacked them, on this trial's account.
        score: the last score it reported.
        failures: applicant -> why their agent could not be trained.
        error: why the whole trial failed.
    """

    trial: Trial
    status: str
    seconds: float = math.nan
    per_second: float = math.nan
    judgements: int = 0
    paid: int = 0
    score: float = math.nan
    failures: dict[str, str] = field(default_factory=dict)
    error: str = ""


def label_of(setting: Mapping[str, Any]) -> str:
    """A setting as part of a folder name."""
    parts = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in setting.items()
    ]
    text = "-".join(parts)
    return "".join(c if c.isalnum() or c in "-_=." else "_" for c in text)


def setting_json(setting: Mapping[str, Any]) -> str:
    """A setting as canonical JSON: equal settings give equal text."""
    return json.dumps(dict(setting), sort_keys=True)
