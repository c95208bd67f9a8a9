"""A trial of a comparison: what it tried, and how it ended."""

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
    """How a trial ended.

    Args:
        status: done, stopped (by the scheduler) or failed.
        seconds: of training, in the last session; per_second: judgements in it.
        judgements, paid: pairs spent of the budgets; pairs for which the judge had to be asked on its bill.
        score: the last that it reported.
        failures: applicant -> why it could not be trained.
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
    """A setting as a part of a folder's name."""
    parts = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in setting.items()
    ]
    text = "-".join(parts)
    return "".join(c if c.isalnum() or c in "-_=." else "_" for c in text)


def setting_json(setting: Mapping[str, Any]) -> str:
    """A setting as text, the same for the same setting."""
    return json.dumps(dict(setting), sort_keys=True)
