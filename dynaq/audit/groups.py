"""Rates and quality by group, where an operator knows the groups that applicants belong to.

Per applicant, over the top K of their final list:

    selection   share of the judged places that hold a job which the judge says they would apply to
    score       mean of the judge's rewards; scoring rate: share of a group's applicants above the median score of all
    exposure    the selection at each rank; over all ranks weighed by 1 / log2(1 + rank) (Singh & Joachims 2018, doi
                10.1145/3219819.3220088)

Scoring rate and impact ratio are those of New York City's Local Law 144 (`dynaq.audit.differences`), whose "selected to
move forward" becomes "is shown a job to apply to", since nobody is rejected by a list. Rates by group are fairlearn's.
A group of fewer people than `smallest` is not shown, nor how many people it has. The file's rows go nowhere else.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, demographic_parity_ratio, selection_rate

from dynaq.audit.differences import Impact, per_profile, unpaired_impact
from dynaq.audit.limits import SMALLEST
from dynaq.audit.record import impact_json, interval_json, known
from dynaq.errors import InputError
from dynaq.evaluation.intervals import Interval, Values, interval
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.evaluation.run_quality import K
from dynaq.qrels import Qrels
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run

Groups = Mapping[str, Mapping[str, str]]  # applicant -> attribute -> group


@dataclass(frozen=True)
class GroupRates:
    """What one group got.

    Args:
        name: of the group; of an intersection with " × " between.
        people: applicants who count.
        selection, scoring: rates, and their ratio to the most favoured group's; None for that group itself.
        exposure: selection at each rank, NaN where nothing is judged, and the discounted sum's ratio to the highest.
        ndcg, trust: means of the group with 95 % intervals, NaN where unknown.
    """

    name: str
    people: int
    selection: float
    selection_impact: Impact | None
    scoring: float
    scoring_impact: Impact | None
    exposure: tuple[float, ...]
    exposure_impact: Impact | None
    ndcg: Interval
    trust: Interval


@dataclass(frozen=True)
class AttributeRates:
    """The groups of one attribute, or of an intersection.

    Args:
        attribute: its name.
        groups: those that are large enough.
        suppressed: number of groups that are too small to be shown.
        parity: fairlearn's demographic parity ratio of the selection, the lowest rate by the highest.
    """

    attribute: str
    groups: tuple[GroupRates, ...]
    suppressed: int
    parity: float


def read_groups(path: str) -> Groups:
    """Groups of a CSV file with the column applicant_id and one per attribute; an empty cell is unknown.

    Raises InputError for a file that cannot be read, lacks columns, or names an applicant twice.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            names = [name for name in rows.fieldnames or () if name != "applicant_id"]
            if not names or "applicant_id" not in (rows.fieldnames or ()):
                raise InputError(f"groups file {path} needs the column applicant_id and one for each attribute")
            for row in rows:
                if row["applicant_id"] in found:
                    raise InputError(f"groups file {path} names applicant {row['applicant_id']!r} twice")
                found[row["applicant_id"]] = {name: (row[name] or "").strip() for name in names}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"groups file {path} cannot be read: {error}") from None
    return found


@dataclass(frozen=True)
class _People:
    """A row per applicant: labels are 1 for APPLY, 0 for others and NaN without a judgement, `[people, K]`."""

    ids: list[str]
    applied: Values
    score: Values
    ndcg: Values
    trust: Values

    @property
    def selection(self) -> Values:
        return per_profile(self.applied)

    @property
    def above(self) -> Values:
        """1 for a score above the median of all, NaN without a score."""
        return np.where(np.isnan(self.score), np.nan, self.score > np.nanmedian(self.score))

    @property
    def exposure(self) -> Values:
        weights = 1.0 / np.log2(np.arange(2, self.applied.shape[1] + 2))
        known = ~np.isnan(self.applied)
        total = (known * weights).sum(1)
        found: Values = np.divide(
            (np.nan_to_num(self.applied) * weights).sum(1), total, out=np.full(len(total), np.nan), where=total > 0
        )
        return found


def group_rates(
    run: Run, judged: Judged, groups: Groups, qrels: Qrels | None = None, smallest: int = SMALLEST
) -> list[AttributeRates]:
    """Rates by each attribute and by each pair of them. Raises InputError when no applicant of the run is in a group.

    Applicants of whose list nothing is judged do not count.
    """
    people = _people(run, judged, [one for one in run.ranked if one in groups], qrels)
    if not people.ids:
        raise InputError(f"no applicant of run {run.folder.uri!r} with a judged list is in the groups file")
    names = list(next(iter(groups.values())))
    families = [(name,) for name in names] + list(combinations(names, 2))
    labels = {family: [_group(groups[one], family) for one in people.ids] for family in families}
    large = {family: _large(own, smallest) for family, own in labels.items()}
    # The most favoured group is known only afterwards, so every pair of groups counts, for each of three ratios.
    comparisons = 3 * sum(comb(len(own), 2) for own in large.values())
    return [_attribute(" × ".join(f), people, labels[f], large[f], comparisons) for f in families]


def _people(run: Run, judged: Judged, ids: Sequence[str], qrels: Qrels | None) -> _People:
    rows, scores, ndcg, kept = [], [], [], []
    trust = _last_trust(run)
    for applicant_id in ids:
        top = [job_id for job_id, _ in run.ranked[applicant_id][:K]]
        answers = [judged.get((applicant_id, job_id)) for job_id in top]
        told = [answer for answer in answers if answer is not None]
        if not told:
            continue
        row = [np.nan if answer is None else float(answer[1] == "APPLY") for answer in answers]
        rows.append(row + [np.nan] * (K - len(row)))
        scores.append(float(np.mean([reward for reward, _ in told])))
        ndcg.append(ndcg_at_k(top, qrels.grades(applicant_id), K) if qrels else np.nan)
        kept.append(applicant_id)
    table = np.array(rows, np.float64).reshape(len(kept), K)
    return _People(kept, table, np.array(scores), np.array(ndcg), np.array([trust.get(one, np.nan) for one in kept]))


def _last_trust(run: Run) -> dict[str, float]:
    """Applicant -> trust in the judge after their last round; empty for runs that did not estimate it."""
    if "trust" not in run.metrics.column_names:
        return {}
    columns = (run.metrics.column(name).to_pylist() for name in ("round", "applicant_id", "trust"))
    return {who: np.nan if trust is None else trust for _, who, trust in sorted(zip(*columns, strict=True))}


def _group(own: Mapping[str, str], family: Sequence[str]) -> str:
    """The group's name, "" where one of the attributes is unknown."""
    parts = [own[name] for name in family]
    return " × ".join(parts) if all(parts) else ""


def _large(labels: Sequence[str], smallest: int) -> list[str]:
    names, counts = np.unique([label for label in labels if label], return_counts=True)
    return [str(name) for name, count in zip(names, counts, strict=True) if count >= smallest]


def _attribute(
    name: str, people: _People, labels: Sequence[str], large: Sequence[str], comparisons: int
) -> AttributeRates:
    suppressed = len({label for label in labels if label} - set(large))
    if not large:
        return AttributeRates(name, (), suppressed, float("nan"))
    kept = np.isin(labels, large)
    groups = np.array(labels)[kept]
    selection, parity = _selection(people.applied[kept], groups)
    scoring = _rates(people.above[kept].astype(np.int64), groups)
    exposure = people.exposure
    impacts = {
        kind: _impacts(values[kept], groups, comparisons)
        for kind, values in (("selection", people.selection), ("scoring", people.above), ("exposure", exposure))
    }
    found = []
    for group in large:
        own = np.array([label == group for label in labels])
        by_rank = per_profile(people.applied[own].T)
        found.append(
            GroupRates(
                group,
                int(own.sum()),
                selection[group],
                impacts["selection"][group],
                scoring[group],
                impacts["scoring"][group],
                tuple(by_rank.tolist()),
                impacts["exposure"][group],
                interval(people.ndcg[own], within=(0.0, 1.0)),
                interval(people.trust[own], within=(0.0, 1.0)),
            )
        )
    return AttributeRates(name, tuple(found), suppressed, parity)


def _selection(applied: Values, groups: Any) -> tuple[dict[str, float], float]:
    """fairlearn's selection rate by group, each applicant with the same weight, and its demographic parity ratio."""
    who, place = np.nonzero(~np.isnan(applied))
    predicted = applied[who, place].astype(np.int64)
    weights = 1.0 / np.bincount(who, minlength=len(applied))[who]
    parity = demographic_parity_ratio(predicted, predicted, sensitive_features=groups[who], sample_weight=weights)
    return _rates(predicted, groups[who], sample_weight=weights), float(parity)


def _rates(predicted: Any, groups: Any, **sample: Any) -> dict[str, float]:
    """fairlearn's selection rate of predictions 0 and 1 by group."""
    frame = MetricFrame(
        metrics=selection_rate,
        y_true=predicted,
        y_pred=predicted,
        sensitive_features=pd.Series(groups, name="group"),
        sample_params=sample,
    )
    return {str(name): float(rate) for name, rate in frame.by_group.items()}


def _impacts(values: Values, groups: Any, comparisons: int) -> dict[str, Impact | None]:
    """Group -> its ratio to the group with the highest mean; None for that one."""
    by_group = {str(name): values[groups == name] for name in np.unique(groups)}
    best = max(by_group, key=lambda name: float(np.nanmean(by_group[name])))
    return {
        name: None if name == best else unpaired_impact(own, by_group[best], comparisons)
        for name, own in by_group.items()
    }


def groups_json(found: Sequence[AttributeRates]) -> list[dict[str, Any]]:
    """The groups of a record: aggregates only."""
    return [
        {
            "attribute": one.attribute,
            "suppressed": one.suppressed,
            "demographic_parity_ratio": known(one.parity),
            "groups": [_group_json(group) for group in one.groups],
        }
        for one in found
    ]


def _group_json(group: GroupRates) -> dict[str, Any]:
    return {
        "name": group.name,
        "people": group.people,
        "selection_rate": known(group.selection),
        "selection_impact": impact_json(group.selection_impact),
        "scoring_rate": known(group.scoring),
        "scoring_impact": impact_json(group.scoring_impact),
        "exposure_by_rank": [known(rate) for rate in group.exposure],
        "exposure_impact": impact_json(group.exposure_impact),
        "ndcg": interval_json(group.ndcg),
        "trust": interval_json(group.trust),
    }
