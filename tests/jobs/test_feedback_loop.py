"""The whole loop on simulated applicants: recommend, feedback, retrain, evaluate, promote, recommend better.

Through the real HTTP API and the real commands. Applicants look like one topic and want the next (tests/dynaq/
toy_market.py), so that what people do is the only way to find out; a ledger with every pair plays them.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaq.evaluation.intervals import interval
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.feedback.events import FeedbackEvent, events
from dynaq.runs.q_table import ServedRun
from dynaq.stores import open_store
from jobs.cli import run
from recommend_service.api import make_app
from recommend_service.config import RecommendConfig
from recommend_service.service import Recommender
from tests.support.embedders import HashEmbedder
from tests.support.live_service import live
from tests.support.toy_market import ToyMarket, toy_market

pytestmark = [pytest.mark.usefixtures("ray_session_fixture"), pytest.mark.slow]

JOBS, APPLICANTS = 120, 48
SHARPNESS = 1.0  # explores more than the default: enough to tell two rankings apart from a few lists
ANSWERS = {3.0: (0.75, 0.15, 0.05, 0.05), 1.0: (0.05, 0.1, 0.35, 0.5), 0.0: (0.01, 0.02, 0.07, 0.9)}
NAMES = ("p_apply", "p_save", "p_click", "p_ignore")


@dataclass(frozen=True)
class Loop:
    """What each turn of the loop left behind."""

    market: ToyMarket
    first: ServedRun
    second: ServedRun
    first_visits: dict[str, Any]
    held_out_visits: dict[str, Any]
    second_visits: dict[str, Any]
    promotion: dict[str, Any]
    learned_until: datetime
    taken_over_by: str
    events: list[FeedbackEvent]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, ray_session_fixture: None) -> Loop:
    folder = tmp_path_factory.mktemp("loop")
    market = toy_market(folder / "store", jobs=JOBS, applicants=APPLICANTS)
    rows = [
        {"applicant_id": applicant, "job_id": job} | dict(zip(NAMES, ANSWERS[grade], strict=True))
        for applicant, grades in market.grades.items()
        for job, grade in grades.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "people.parquet")
    train(folder, "first", "--strategy", "cosine")
    promote(folder, "first")
    settings = RecommendConfig(
        store=str(folder / "store"), serving=str(folder / "serving"), poll_seconds=0.1, sharpness=SHARPNESS
    )
    with live(make_app(Recommender(settings, HashEmbedder()))) as url:
        first_visits = visit(folder, url, rounds=4)
        learned_until = datetime.now(UTC)
        held_out_visits = visit(folder, url, rounds=5)
        train(folder, "second", "--strategy", "llm", "--judge", "none", "--feedback-until", learned_until.isoformat())
        promotion = promote(folder, "second")
        second = ServedRun.open(str(folder / "second"))
        deadline = time.monotonic() + 20
        while (taken_over_by := httpx.get(f"{url}/readyz").json()["run_id"]) != second.run_id:
            assert time.monotonic() < deadline, "the promoted run was not taken over"
            time.sleep(0.1)
        second_visits = visit(folder, url, rounds=1)
    with open_store(folder / "store", read_only=True) as store:
        done = list(events(store.feedback()))
    return Loop(
        market,
        ServedRun.open(str(folder / "first")),
        second,
        first_visits,
        held_out_visits,
        second_visits,
        promotion,
        learned_until,
        taken_over_by,
        done,
    )


def train(folder: Path, name: str, *options: str) -> None:
    (folder / "config.yaml").write_text(f"block_size: {APPLICANTS}\n")  # one actor, which starts faster than four
    common = ["--store", str(folder / "store"), "--budget", "20", "--config", str(folder / "config.yaml")]
    assert run(["train", *common, "--out", str(folder / name), *options]) == 0


def spoken(arguments: list[str]) -> dict[str, Any]:
    """Run a command with --json; what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run([*arguments, "--json"]) == 0, out.getvalue()
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def promote(folder: Path, name: str) -> dict[str, Any]:
    places = ["--run", str(folder / name), "--serving", str(folder / "serving")]
    return spoken(["promote", *places, "--sharpness", str(SHARPNESS)])


def visit(folder: Path, url: str, rounds: int) -> dict[str, Any]:
    options = ["--rounds", str(rounds), "--rate", "500", "--declines", "0.3", "--seed", "3"]
    return spoken(["simulate", "--url", url, "--judge", f"ledger:{folder}/people.parquet", *options])


def test_the_retrained_run_ranks_what_people_later_took_higher(loop: Loop) -> None:
    """Held out: what people did after the events that were learned from, on jobs they had not answered before."""
    known: dict[str, set[str]] = {}
    later: list[tuple[str, str]] = []
    for one in loop.events:
        if one.at < loop.learned_until:
            known.setdefault(one.applicant_id, set()).add(one.job_id)
        elif one.event in ("apply", "save") and one.job_id not in known.get(one.applicant_id, ()):
            later.append((one.applicant_id, one.job_id))
    assert len(later) > 30

    def mean_place(run: ServedRun) -> float:
        places = []
        for applicant_id, job_id in later:
            left = [job for job in ranked(run, applicant_id) if job not in known[applicant_id]]
            places.append(left.index(job_id) / len(left))
        return float(np.mean(places))

    assert mean_place(loop.second) < 0.6 * mean_place(loop.first)


def test_the_retrained_run_ranks_what_nobody_told_it_better(loop: Loop) -> None:
    known = {(one.applicant_id, one.job_id) for one in loop.events if one.at < loop.learned_until}
    scores: dict[str, list[float]] = {"first": [], "second": []}
    for applicant_id, grades in loop.market.grades.items():
        left = {job: grade for job, grade in grades.items() if (applicant_id, job) not in known}
        for name, run_ in (("first", loop.first), ("second", loop.second)):
            order = [job for job in ranked(run_, applicant_id) if job in left]
            scores[name].append(ndcg_at_k(order, left))
    gain = np.array(scores["second"]) - np.array(scores["first"])
    assert interval(gain, symmetric=True).low > 0.2


def test_off_policy_evaluation_said_so_before_it_served(loop: Loop) -> None:
    assert loop.promotion["verdict"] == "better"
    assert loop.promotion["evaluation"]["difference"]["dr"]["low"] > 0
    assert loop.promotion["left_out"]["before"] == loop.first_visits["visits"]


def test_the_promoted_run_takes_over_and_people_like_its_lists_better(loop: Loop) -> None:
    assert loop.taken_over_by == loop.second.run_id
    assert list(loop.second_visits["policies"]) == [loop.second.run_id]
    before = loop.first_visits["policies"][loop.first.run_id]["mean_reward"]
    assert loop.second_visits["policies"][loop.second.run_id]["mean_reward"] > 2 * before


def ranked(run_: ServedRun, applicant_id: str) -> list[str]:
    found = run_.ranked(applicant_id)
    assert found is not None
    return found
