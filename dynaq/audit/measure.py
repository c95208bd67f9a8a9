"""Counterfactuals of an audit: every contrast, measured on the judge, on similarity lists and on agents' lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynaq.audit.attributes import Contrast
from dynaq.audit.counterfactuals import Variant
from dynaq.audit.differences import (
    Effect,
    Impact,
    differences,
    effect,
    means_of_sides,
    paired_impact,
    per_profile,
    scoring_rates,
)
from dynaq.audit.lists import Lists
from dynaq.audit.rankings import changed, order_of, rank_biased_overlap
from dynaq.audit.record import EXPECTED, IMPACT, REWARD, effect_json, finding, impact_json, interval_json
from dynaq.evaluation.intervals import Interval, Values, interval
from dynaq.judging.judgement import LABELS, Judgement
from dynaq.records import Candidate, Job

BY_SIMILARITY, BY_AGENTS = "similarity", "agents"
Answers = Mapping[tuple[str, str], Judgement]  # (id of a variant's text, job id) -> the judge's answer


@dataclass(frozen=True)
class ListEffect:
    """How lists differ between the sides of a contrast.

    Args:
        overlap: mean rank-biased overlap of the top lists.
        changed: share of profiles whose top list holds other jobs.
        expected: difference of the reward that the ranking expects of its list; None for rankings that expect none.
    """

    overlap: Interval
    changed: Interval
    expected: Effect | None


@dataclass(frozen=True)
class Measured:
    """A contrast and what was found.

    Args:
        contrast: the comparison.
        texts_differ: share of profiles whose text is not the same on both sides.
        pairs: judged (profile, job) pairs per level that count.
        reward: difference of the judge's reward.
        impact: scoring rates of the judge and their ratio.
        labels: share of pairs that get another label.
        overlap: rank-biased overlap of the judge's order of a profile's jobs.
        lists: kind of list -> its effect.
    """

    contrast: Contrast
    texts_differ: float
    pairs: int
    reward: Effect
    impact: Impact
    labels: Interval
    overlap: Interval
    lists: Mapping[str, ListEffect]

    @property
    def identical(self) -> bool:
        """Whether both sides have the same texts, and so the same answers and lists."""
        return self.texts_differ == 0.0


Row = tuple[Candidate, tuple[str, ...]]  # a profile's text, and the jobs that it is judged on
Rows = Mapping[str, Mapping[str, Sequence[Row]]]  # attribute -> level -> a row per profile


def rows_of(variants: Sequence[Variant], jobs: Sequence[tuple[str, ...]]) -> dict[str, dict[str, list[Row]]]:
    """The rows of counterfactual profiles. jobs: of each profile, as many for each, the same under all levels."""
    rows: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for variant in variants:
        rows[variant.attribute][variant.level].append((variant.text, jobs[variant.profile]))
    return rows


def rows_of_postings(texts: Sequence[Candidate], postings: Mapping[str, Sequence[Job]]) -> dict[str, list[Row]]:
    """Level -> rows of profiles, the same under all levels, with that level's postings."""
    return {level: [(text, tuple(job.id for job in jobs)) for text in texts] for level, jobs in postings.items()}


class Sample:
    """What is judged, and the judge's answers on it as tables.

    Args:
        rows: of every attribute and level.
        answers: what the judge said. A pair that is missing counts as an abstention.
    """

    def __init__(self, rows: Rows, answers: Answers) -> None:
        self.rows, self._answers = rows, answers

    def texts(self, attribute: str, level: str) -> list[Candidate]:
        """The profiles' texts under a level, in the order of the profiles."""
        return [text for text, _ in self.rows[attribute][level]]

    def differ(self, attribute: str, a: str, b: str) -> float:
        """Share of profiles whose text or jobs are not the same under two levels."""
        pairs = zip(self.rows[attribute][a], self.rows[attribute][b], strict=True)
        return float(np.mean([(one.id, jobs) != (two.id, others) for (one, jobs), (two, others) in pairs]))

    def rewards(self, contrast: Contrast) -> dict[str, Values]:
        """Level -> rewards `[profiles, jobs]`, NaN where the judge abstained."""
        return self._table(contrast, lambda one: np.nan if one.reward is None else one.reward)

    def labels(self, contrast: Contrast) -> dict[str, Values]:
        """Level -> index of the label `[profiles, jobs]`, NaN where the judge abstained."""
        return self._table(contrast, lambda one: np.nan if one.label is None else LABELS.index(one.label))

    def _table(self, contrast: Contrast, value: Callable[[Judgement], float]) -> dict[str, Values]:
        found = {}
        for level in (*contrast.other, *contrast.reference):
            rows = self.rows[contrast.attribute][level]
            cells = [[self._answers.get((text.id, job_id)) for job_id in jobs] for text, jobs in rows]
            found[level] = np.array([[np.nan if one is None else value(one) for one in row] for row in cells])
        return found


def measure(
    contrasts: Sequence[Contrast],
    sample: Sample,
    rankers: Mapping[str, Callable[[Sequence[Candidate]], Lists]],
    comparisons: int,
) -> list[Measured]:
    """Every contrast.

    Args:
        contrasts: what to compare.
        sample: texts and answers.
        rankers: kind of list -> makes the lists of the profiles' texts; called once for equal texts.
        comparisons: differences and ratios that are tested together.
    """
    known: dict[tuple[str, ...], Lists] = {}

    def ranked(kind: str, attribute: str, level: str) -> Lists:
        texts = sample.texts(attribute, level)
        key = (kind, *(text.id for text in texts))
        if key not in known:
            known[key] = rankers[kind](texts)
        return known[key]

    def both(kind: str, contrast: Contrast) -> list[tuple[Lists, Lists]]:
        return [
            (ranked(kind, contrast.attribute, a), ranked(kind, contrast.attribute, b)) for a, b in _couples(contrast)
        ]

    return [
        _measured(one, sample, {kind: _list_effect(both(kind, one), comparisons) for kind in rankers}, comparisons)
        for one in contrasts
    ]


def _measured(contrast: Contrast, sample: Sample, lists: Mapping[str, ListEffect], comparisons: int) -> Measured:
    rewards, labels = sample.rewards(contrast), sample.labels(contrast)
    other, reference = scoring_rates(rewards, contrast)
    kept, _ = means_of_sides(rewards, contrast)
    pairs = int((~np.isnan(kept)).sum())
    couples = _couples(contrast)
    label = [np.where(np.isnan(labels[a] + labels[b]), np.nan, labels[a] != labels[b]) for a, b in couples]
    orders = [rank_biased_overlap(order_of(rewards[a]), order_of(rewards[b])) for a, b in couples]
    return Measured(
        contrast,
        float(np.mean([sample.differ(contrast.attribute, a, b) for a, b in couples])),
        pairs,
        effect(differences(rewards, [contrast])[:, 0], comparisons),
        paired_impact(other, reference, pairs, comparisons),
        interval(per_profile(np.mean(label, axis=0)), within=(0.0, 1.0)),
        interval(np.mean(orders, axis=0), within=(0.0, 1.0)),
        lists,
    )


def _couples(contrast: Contrast) -> list[tuple[str, str]]:
    """Levels of both sides that are compared list by list."""
    return list(zip(contrast.other, contrast.reference, strict=True))


def _list_effect(sides: Sequence[tuple[Lists, Lists]], comparisons: int) -> ListEffect:
    gains = np.mean([a.expected - b.expected for a, b in sides], axis=0)
    return ListEffect(
        interval(np.mean([rank_biased_overlap(a.ranked, b.ranked) for a, b in sides], axis=0), within=(0.0, 1.0)),
        interval(np.mean([changed(a.ranked, b.ranked) for a, b in sides], axis=0), within=(0.0, 1.0)),
        None if np.isnan(gains).all() else effect(gains, comparisons),
    )


def contrast_json(found: Measured) -> dict[str, Any]:
    """One contrast of a record, with one sentence on it."""
    contrast = found.contrast
    record: dict[str, Any] = {
        "name": contrast.name,
        "attribute": contrast.attribute,
        "other": list(contrast.other),
        "reference": list(contrast.reference),
        "decides": contrast.decides,
        "identical": found.identical,
        "texts_differ": found.texts_differ,
        "pairs": found.pairs,
        REWARD: effect_json(found.reward),
        IMPACT: impact_json(found.impact),
        "labels_changed": interval_json(found.labels),
        "judge_overlap": interval_json(found.overlap),
        "lists": {kind: _list_json(one) for kind, one in found.lists.items()},
    }
    return record | {"finding": finding(record)}


def _list_json(found: ListEffect) -> dict[str, Any]:
    return {
        "overlap": interval_json(found.overlap),
        "changed": interval_json(found.changed),
        EXPECTED: effect_json(found.expected),
    }
