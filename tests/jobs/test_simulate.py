"""dynaq simulate: a judge plays the applicants against the real API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynaq.feedback.events import events, exposures
from dynaq.judging.judgement import Slate
from dynaq.judging.ledger_file import ReplayJudge
from dynaq.judging.sampled import draw
from dynaq.stores import open_store
from jobs.cli import run
from recommend_service.api import make_app
from recommend_service.config import API_KEY
from recommend_service.service import Recommender
from tests.support.embedders import HashEmbedder
from tests.support.judges import RuleJudge
from tests.support.live_service import live
from tests.support.recommend_market import APPLICANTS, JOB_IDS, config, make_market, make_run, prefers

pytestmark = pytest.mark.slow

K = 6
NAMES = ("p_apply", "p_save", "p_click", "p_ignore")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every pair, answered in every way."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.parquet"
    rows = [
        {"applicant_id": f"a{a}", "job_id": job_id} | dict(zip(NAMES, (0.2, 0.2, 0.2, 0.4), strict=True))
        for a in range(APPLICANTS)
        for job_id in JOB_IDS
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@contextmanager
def service(folder: Path, **fields: Any) -> Iterator[str]:
    """A market whose a0 has an agent, and its API."""
    store = make_market(str(folder / "store"))
    make_run(folder / "run", {"a0": prefers(3, 1, 4)})
    with live(make_app(Recommender(config(store, folder / "run", **fields), HashEmbedder()))) as url:
        yield url


def simulate(url: str, ledger: Path, *options: str) -> int:
    return run(["simulate", "--url", url, "--judge", f"ledger:{ledger}", "-k", str(K), "--rate", "1000", *options])


def stored(folder: Path) -> set[tuple[str, str, str]]:
    with open_store(str(folder / "store"), read_only=True) as store:
        return {(one.applicant_id, one.job_id, one.event) for one in events(store.feedback())}


def test_people_send_what_the_judge_makes_of_what_they_were_shown(
    tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(tmp_path) as url:
        assert simulate(url, ledger, "--declines", "1", "--seed", "4", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    with open_store(str(tmp_path / "store"), read_only=True) as store:
        lists = list(exposures(store.exposures()))
    judge = ReplayJudge(ledger)
    expected, rewards = set(), []
    for one in lists:
        (answers,) = judge.fetch([Slate(one.applicant_id, one.job_ids)])
        drawn = [draw(answer, 4) for answer in answers]
        rewards.append(sum(answer.reward or 0.0 for answer in drawn))
        expected |= {(one.applicant_id, answer.job_id, str(answer.label).lower()) for answer in drawn}
    assert stored(tmp_path) == expected
    assert len(lists) == APPLICANTS
    assert sum(summary["events"].values()) == APPLICANTS * K == len(expected)
    policies = summary["policies"]
    assert {name: one["lists"] for name, one in policies.items() if name == "warm-start"} == {"warm-start": 4}
    total = sum(one["lists"] * one["mean_reward"] for one in policies.values())
    assert total == pytest.approx(sum(rewards))
    assert summary["latency_ms"]["recommendations"]["calls"] == APPLICANTS
    assert summary["failures"] == {}


def test_the_same_seed_is_the_same_people_and_those_who_decline_nothing_are_silent(
    tmp_path: Path, ledger: Path
) -> None:
    seen = []
    for name, options in (("one", ()), ("two", ("--concurrency", "1")), ("silent", ("--declines", "0"))):
        (tmp_path / name).mkdir()
        with service(tmp_path / name) as url:
            assert simulate(url, ledger, "--rounds", "2", *options) == 0
        seen.append(stored(tmp_path / name))
    assert seen[0] == seen[1]
    assert {event for _, _, event in seen[0]} >= {"ignore", "apply"}
    assert "ignore" not in {event for _, _, event in seen[2]}


def test_visits_keep_to_their_rate_and_number(tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service(tmp_path) as url:
        began = time.monotonic()
        assert simulate(url, ledger, "--rate", "10", "--rounds", "3", "--applicants", "2", "--json") == 0
        assert time.monotonic() - began >= 0.5
    assert json.loads(capsys.readouterr().out)["visits"] == 6


def test_who_is_told_to_wait_waits_and_loses_nothing(
    tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(tmp_path, max_batch=K, feedback_burst=K, feedback_per_second=4.0) as url:
        assert simulate(url, ledger, "--declines", "1", "--applicants", "2", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["waited"] > 0
    assert len(stored(tmp_path)) == 2 * K


def test_the_table_is_short(tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service(tmp_path) as url:
        assert simulate(url, ledger) == 0
    out = capsys.readouterr().out
    assert "5 of 5 applicants" in out
    assert "p99" in out


def test_a_key_is_needed_where_the_service_wants_one(
    tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(tmp_path, api_key="open sesame") as url:
        assert simulate(url, ledger) == 2
        assert "401" in capsys.readouterr().err
        monkeypatch.setenv(API_KEY, "open sesame")
        assert simulate(url, ledger) == 0


def test_what_cannot_be_simulated_is_said_in_one_line(
    tmp_path: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("http://127.0.0.1:9", ledger) == 2
    assert "no recommendation service answers" in capsys.readouterr().err
    assert simulate("ftp://example", ledger) == 2
    assert run(["simulate", "--url", "http://127.0.0.1:9", "--judge", "vllm"]) == 2
    assert "name the service's --store" in capsys.readouterr().err
    table = pq.read_table(ledger)
    pq.write_table(table.slice(0, 20), tmp_path / "part.parquet")
    with service(tmp_path) as url:
        assert simulate(url, tmp_path / "part.parquet") == 1
    assert "has no judgement of" in capsys.readouterr().err


def test_a_judge_that_is_asked_keeps_its_answers_in_the_services_own_store(
    tmp_path: Path, ledger: Path, ray_session_fixture: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the running service, and once per pair however many visits there are."""
    judge = RuleJudge(tmp_path / "asked.txt")
    monkeypatch.setattr("jobs.simulate.judge_backend", lambda name: judge.backend())
    with service(tmp_path) as url:
        for _ in range(2):
            options = ["--judge", "vllm", "--store", str(tmp_path / "store"), "--declines", "0"]
            assert simulate(url, ledger, *options) == 0
        assert len(judge.answered) == len(set(judge.answered)) > APPLICANTS * K
        with open_store(str(tmp_path / "store"), read_only=True) as store:
            assert store.judgements().num_rows == len(judge.answered)
