"""Human oversight: jobs that an operator blocked or pinned for an applicant, and which part of a list is whose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from dynaq.feedback.answers import HIDES
from dynaq.feedback.events import Decision, Event, decisions
from recommend_service.applicant_ranking import Ranking
from recommend_service.catalogue import Catalogue
from recommend_service.schemas import By, Part
from recommend_service.slates import Shown


class Decisions:
    """What counts of operators' decisions, kept in memory as they arrive: the latest of each pair."""

    def __init__(self, table: pa.Table) -> None:
        self._latest: dict[str, dict[str, Decision]] = {}
        self.add_table(table)

    def add_table(self, table: pa.Table) -> None:
        """Add the decisions of a table with the columns of `DECISION_SCHEMA`, oldest first."""
        self.add(decisions(table))

    def add(self, new: Iterable[Decision]) -> None:
        """Add further decisions, in the order in which they were made."""
        for one in new:
            self._latest.setdefault(one.applicant_id, {})[one.job_id] = one

    def of_applicant(self, applicant_id: str) -> dict[str, str]:
        """Job -> block or pin."""
        own = self._latest.get(applicant_id, {})
        return {job_id: one.action for job_id, one in own.items() if one.action != "clear"}

    def forget(self, applicant_id: str) -> None:
        """Drop an applicant's."""
        self._latest.pop(applicant_id, None)


def set_aside(standing: Mapping[str, Event], decided: Mapping[str, str]) -> dict[str, Event]:
    """The standing events by which a list is drawn: blocked and pinned jobs are not drawn, as declined ones are not."""
    return dict(standing) | dict.fromkeys(decided, "ignore")


def with_pinned(shown: Shown, ranking: Ranking, catalogue: Catalogue, pinned: Sequence[str], k: int) -> Shown:
    """The list with the pinned jobs first, in the order in which they were pinned; k jobs in all.

    Jobs that are not in the kept top of the ranking have no score (NaN).
    """
    rows = np.array([catalogue.rows[job_id] for job_id in pinned if job_id in catalogue.rows][:k], np.int64)
    if not len(rows):
        return shown
    rest = shown.ranking.only(np.arange(min(len(shown.ranking.rows), k - len(rows))))
    place = {row: i for i, row in enumerate(ranking.rows.tolist())}
    own = [place.get(row) for row in rows.tolist()]
    scores = [float(ranking.scores[i]) if i is not None else np.nan for i in own]
    estimated = [bool(ranking.estimated[i]) if i is not None else False for i in own]
    return Shown(
        Ranking(
            np.concatenate([rows, rest.rows]),
            np.concatenate([np.array(scores, np.float32), rest.scores]),
            np.concatenate([np.array(estimated, bool), rest.estimated]),
            ranking.policy,
            whole=False,
        ),
        None if shown.wish is None else np.concatenate([np.zeros(len(rows), np.float32), shown.wish[: len(rest.rows)]]),
        (*(1.0,) * len(rows), *shown.propensities[: len(rest.rows)]),
        (*(False,) * len(rows), *shown.exploring[: len(rest.rows)]),
    )


def parts(
    source: Literal["agent", "warm-start"],
    judge: str | None,
    standing: Mapping[str, Event],
    decided: Mapping[str, str],
    *,
    wish: bool,
    explored: bool,
    remembered: bool,
) -> list[Part]:
    """Which parts of a list come from a model, a judge or a person. judge: of the run's answers, if there was one.

    remembered: whether the applicant's history counts.
    """
    agent = source == "agent"
    order: list[tuple[By, str] | None] = [
        ("model", "learned by the applicant's own agent" if agent else "similarity of profile and jobs"),
        ("model", "kinds of jobs moved by what the applicant acted on lately") if remembered else None,
        ("model", "varied a little at random, with recorded probabilities") if explored else None,
        ("judge", f"the agent learned from answers that {judge} gave in their place") if agent and judge else None,
        ("person", "the applicant's wish") if wish else None,
    ]
    hidden = sum(event in HIDES for event in standing.values())
    actions = list(decided.values())
    selection: list[tuple[int, str]] = [
        (hidden, "left out after the applicant's own answers"),
        (actions.count("pin"), "pinned by the operator"),
        (actions.count("block"), "left out by the operator"),
    ]
    return [Part(by=one[0], what="order", how=one[1]) for one in order if one] + [
        Part(by="person", what="selection", how=f"{count} job{'s' * (count > 1)} {how}")
        for count, how in selection
        if count
    ]
