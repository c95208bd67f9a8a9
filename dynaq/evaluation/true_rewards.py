"""The true reward of some pairs, and a run's judge reward corrected by it (`dynaq.evaluation.prediction_powered`).

Known are, in this order: what applicants did, hand-made labels, and relevance, whose grades become labels
(`Qrels.label`). An applicant with relevance has a true reward for every job; jobs without a grade are IGNORE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from dynaq.evaluation.prediction_powered import Corrected, corrected_mean
from dynaq.feedback.answers import EVENT_LABELS, settle
from dynaq.judging.judgement import LABEL_VALUES, Label
from dynaq.qrels import Qrels
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run


class TrueRewards:
    """Looks up the true reward of a pair.

    events: with the columns of FEEDBACK_SCHEMA. gold: hand-made labels, with the columns of JUDGEMENT_SCHEMA.
    """

    def __init__(
        self, events: pa.Table | None = None, gold: pa.Table | None = None, qrels: Qrels | None = None
    ) -> None:
        self._labels: dict[tuple[str, str], Label] = {}
        if gold is not None:
            columns = (gold.column(name).to_pylist() for name in ("applicant_id", "job_id", "label"))
            self._labels |= {(a, job): label for a, job, label in zip(*columns, strict=True)}
        if events is not None:
            self._labels |= {pair: EVENT_LABELS[event] for pair, (event, _) in settle(events).items()}
        self._qrels = qrels
        self._graded = frozenset(qrels.applicants) if qrels is not None else frozenset()

    def of(self, applicant_id: str, job_id: str, values: Mapping[Label, float] = LABEL_VALUES) -> float:
        """The true reward, NaN if it is not known."""
        label = self._labels.get((applicant_id, job_id))
        if label is None and self._qrels is not None and applicant_id in self._graded:
            label = self._qrels.label(applicant_id, job_id)
        return math.nan if label is None else values[label]


def corrected_reward(runs: Sequence[Run], judged: Judged, true: TrueRewards, k: int) -> Corrected | None:
    """The mean true reward of the first k jobs of every applicant of some runs; None where too little is known."""
    pairs = [(one, job_id) for run in runs for one, ranked in run.ranked.items() for job_id, _ in ranked[:k]]
    said = np.array([judged[pair][0] if pair in judged else math.nan for pair in pairs], np.float64)
    return corrected_mean([one for one, _ in pairs], said, np.array([true.of(*pair) for pair in pairs], np.float64))


def corrected_words(name: str, corrected: Mapping[str, float], k: int) -> str:
    """The corrected reward as a sentence; corrected: the fields of `Corrected`."""
    return (
        f"{name}: the judge's own opinion of its lists is {corrected['judged']:z.3f}; corrected by "
        f"{corrected['known']} pairs of the top {k} whose truth is known, their reward is {corrected['mean']:z.3f} "
        f"({corrected['low']:z.3f} to {corrected['high']:z.3f})."
    )
