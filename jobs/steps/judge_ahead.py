"""Judging many pairs before anything is trained on them: `dynaq judge --all-pairs` and `--top`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

import ray

from cluster.broker import JudgeBackend, start_broker
from cluster.bulk_judging import KnownIds, Outcome, count_pairs, file_slates, judge_slates, nearest_slates
from cluster.cache import put_cache
from cluster.session import ray_session
from dynaq.errors import DynaqError, InputError
from dynaq.stores import open_store
from jobs.steps.feedback_answers import told
from jobs.steps.judge_backend import quote
from jobs.steps.prepare import prepare
from jobs.steps.usable_judge import usable_judge
from jobs.terminal.console import Bars, errors, say
from reward_service.costs import Costs, costs_line

SHOWN_PROBLEMS = 20


def judge_ahead(
    store_uri: str, judge: str, backend: JudgeBackend, pairs: Path | None, top: int, address: str | None
) -> None:
    """Judge the pairs of a file, or the `top` nearest jobs of every applicant, into the store's ledger.

    Rows that cannot be used are listed in a file beside `pairs`. Raises InputError when none can, DynaqError when the
    judge failed on some; asking again goes on where the ledger ends.
    """
    if not backend.keep:
        raise InputError(f"--judge {judge} replays recorded answers; --import FILE puts them into the ledger at once")
    total = count_pairs(pairs) if pairs else 0
    prepared = prepare(store_uri, "all", None, None)
    backend = told(backend, store_uri, prepared.cohort)
    total = total or min(top, len(prepared.cache.job_ids)) * len(prepared.cohort)
    if cost := quote(backend, store_uri, prepared.cohort, total):
        say(f"judge: {cost}")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with ray_session(address):
        backend = usable_judge(judge, backend, prepared, None, None)
        if pairs:
            slates = file_slates(pairs, _known(store_uri))
        else:
            slates = nearest_slates(put_cache(prepared.cache), len(prepared.cohort), top)
        broker = start_broker(store_uri, backend)
        outcomes = judge_slates(slates, broker)
        rejected_file = pairs.with_name(f"{pairs.name}.rejected.jsonl") if pairs else None
        with closing(_Tally(total, rejected_file)) as tally:
            tally.take(outcomes)
        stats: Any = ray.get(broker.stats.remote())  # BrokerStats
        costs: Any = ray.get(broker.costs.remote())
        ray.kill(broker)
    say(
        f"{tally.pairs} pairs: {stats.judged - stats.abstained} new in the ledger of {prepared.store_shown}, "
        f"{max(0, tally.pairs - stats.judged)} there already, {stats.abstained} abstained"
    )
    if costs:
        say(costs_line(Costs(**costs)))
    say(f"judge {backend.fingerprint}", "dim")
    tally.complain()


def _known(store_uri: str) -> KnownIds:
    with open_store(store_uri, read_only=True) as store:
        return KnownIds(frozenset(store.ids("candidate")), frozenset(store.ids("job")))


class _Tally:
    """Counts outcomes, shows progress, and keeps what went wrong."""

    def __init__(self, total: int, rejected_file: Path | None) -> None:
        self.pairs = self.rejected = self.failed = 0
        self._total, self._file = total, rejected_file
        self._lines: TextIO | None = None
        if rejected_file is not None:
            rejected_file.unlink(missing_ok=True)  # of an earlier command

    def take(self, outcomes: Iterator[Outcome]) -> None:
        """Consume the outcomes."""
        with Bars(remaining=True) as bars:
            for outcome in outcomes:
                self.pairs += outcome.pairs
                if outcome.problem:
                    self._add(outcome)
                bars.update("pairs", self.pairs + self.rejected, self._total)

    def _add(self, outcome: Outcome) -> None:
        self.rejected += outcome.rejected
        self.failed += not outcome.rejected
        if self.rejected + self.failed <= SHOWN_PROBLEMS:
            where = f"line {outcome.line}" if outcome.line else f"applicant {outcome.applicant_id}"
            errors.print(f"  {where}: {outcome.problem}", soft_wrap=True, markup=False)
        if self._file is not None:
            if self._lines is None:
                self._lines = self._file.open("w", encoding="utf-8")
            entry = {"line": outcome.line, "applicant_id": outcome.applicant_id, "reason": outcome.problem}
            self._lines.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        """Finish the file of rejected rows."""
        if self._lines is not None:
            self._lines.close()

    def complain(self) -> None:
        """Say how many rows were refused. Raises InputError when all were, DynaqError when the judge failed."""
        listed = f"; all are listed in {self._file}" if self._file else ""
        if self.rejected:
            say(f"{self.rejected} rows cannot be used{listed}")
        if self.rejected and not self.pairs + self.failed:
            raise InputError(f"none of {self.rejected} rows can be used; see above")
        if self.failed:
            raise DynaqError(
                f"the judge failed on the pairs of {self.failed} requests (see above{listed}); the same command asks "
                "only for what is missing"
            )
