"""The broker: a pair is paid for once, answers are in the ledger before anyone has them, failures stay failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import broker as module
from cluster.broker import BrokerClient, JudgeBroker, PatientStore, divided, start_broker
from dynaq.errors import DynaqError, JudgeError
from dynaq.judging.history import PastEvent, ledger_key, remembering
from dynaq.judging.judgement import Slate, judgement_from_probabilities
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from tests.support.judges import FINGERPRINT, RuleJudge, rule


@pytest.fixture
def store_path(tmp_path: Path) -> str:
    with open_store(str(tmp_path / "store"), create=True) as store:
        store.put_records("job", [Job(id=f"j{i}", title=f"job {i}") for i in range(20)])
        store.put_records("candidate", [Candidate(id="ann"), Candidate(id="bob")])
    return str(tmp_path / "store")


@pytest.fixture
def judge(tmp_path: Path) -> RuleJudge:
    return RuleJudge(tmp_path / "asked.log", delay=0.05)


def in_one_loop(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    async def together() -> list[Any]:
        return list(await asyncio.gather(*calls, return_exceptions=True))

    return asyncio.run(together())


def test_answers_come_back_per_slate_in_the_order_asked(store_path: str, judge: RuleJudge) -> None:
    broker = JudgeBroker(store_path, judge.backend())
    (answers,) = in_one_loop(broker.fetch([Slate("bob", ("j3", "j1")), Slate("ann", ("j2",))]))
    pairs = [[(answer.applicant_id, answer.job_id) for answer in slate] for slate in answers]
    assert pairs == [[("bob", "j3"), ("bob", "j1")], [("ann", "j2")]]


def test_callers_that_want_the_same_pair_at_once_share_one_request(store_path: str, judge: RuleJudge) -> None:
    broker = JudgeBroker(store_path, judge.backend())
    slate = Slate("ann", ("j1", "j2"))
    answers = in_one_loop(*(broker.fetch([slate]) for _ in range(5)))
    assert judge.answered == [("ann", "j1"), ("ann", "j2")]
    assert all(answer == answers[0] for answer in answers)


def test_a_slate_that_overlaps_a_request_under_way_asks_only_for_the_rest(store_path: str, judge: RuleJudge) -> None:
    broker = JudgeBroker(store_path, judge.backend())
    in_one_loop(broker.fetch([Slate("ann", ("j1", "j2"))]), broker.fetch([Slate("ann", ("j2", "j3"))]))
    assert sorted(judge.answered) == [("ann", "j1"), ("ann", "j2"), ("ann", "j3")]


def test_who_asks_first_pays(store_path: str, judge: RuleJudge) -> None:
    broker = JudgeBroker(store_path, judge.backend())

    async def two_trials() -> dict[str, int]:
        both = [broker.fetch([Slate("ann", ("j1", "j2"))], "a"), broker.fetch([Slate("ann", ("j2", "j3"))], "b")]
        await asyncio.gather(*both)
        await broker.fetch([Slate("ann", ("j1", "j2", "j3"))], "b")
        return await broker.bills()

    assert in_one_loop(two_trials()) == [{"a": 2, "b": 1}]


def test_an_answer_is_in_the_ledger_when_the_caller_has_it(store_path: str, judge: RuleJudge) -> None:
    broker = JudgeBroker(store_path, judge.backend())
    in_one_loop(broker.fetch([Slate("ann", ("j1",))]))
    with open_store(store_path, read_only=True) as store:
        table = store.judgements(FINGERPRINT)
    assert table.select(["applicant_id", "job_id"]).to_pylist() == [{"applicant_id": "ann", "job_id": "j1"}]


def test_a_new_broker_answers_from_the_ledger_and_never_starts_the_judge(store_path: str, judge: RuleJudge) -> None:
    first = JudgeBroker(store_path, judge.backend())
    (before,) = in_one_loop(first.fetch([Slate("ann", ("j1", "j2"))]))
    asyncio.run(first.close())
    second = JudgeBroker(store_path, judge.backend())
    after, stats = asyncio.run(_fetch_and_stats(second, Slate("ann", ("j1", "j2"))))
    assert [answer.reward for answer in after[0]] == [answer.reward for answer in before[0]]
    assert (stats.judge_started, stats.judged, stats.replayed) == (False, 0, 2)


def test_a_failing_judge_raises_in_every_caller_and_leaves_nothing_behind(store_path: str, judge: RuleJudge) -> None:
    judge.failing = ("j2",)
    broker = JudgeBroker(store_path, judge.backend())
    outcomes = in_one_loop(broker.fetch([Slate("ann", ("j1", "j2"))]), broker.fetch([Slate("ann", ("j2",))]))
    assert [type(outcome) for outcome in outcomes] == [JudgeError, JudgeError]
    with open_store(store_path, read_only=True) as store:
        assert store.judgements(FINGERPRINT).num_rows == 0


def test_a_pair_that_failed_can_be_asked_again(store_path: str, judge: RuleJudge) -> None:
    judge.failing = ("j1",)
    broker = JudgeBroker(store_path, judge.backend())

    async def fail_then_succeed() -> Any:
        with pytest.raises(JudgeError):
            await broker.fetch([Slate("ann", ("j1",))])
        judge.failing = ()
        return await broker.fetch([Slate("ann", ("j1",))])

    assert asyncio.run(fail_then_succeed())[0][0].job_id == "j1"


def test_an_abstention_reaches_the_caller_is_not_kept_and_is_asked_again(store_path: str, judge: RuleJudge) -> None:
    judge.abstaining = ("j1",)
    broker = JudgeBroker(store_path, judge.backend())

    async def twice() -> Any:
        first = await broker.fetch([Slate("ann", ("j1", "j2"))])
        await broker.fetch([Slate("ann", ("j1", "j2"))])
        return first

    first = asyncio.run(twice())
    assert [answer.abstained for answer in first[0]] == [True, False]
    assert judge.answered.count(("ann", "j1")) == 2
    assert judge.answered.count(("ann", "j2")) == 1


def test_an_applicant_without_a_text_is_an_error_that_names_them(store_path: str, judge: RuleJudge) -> None:
    broker = JudgeBroker(store_path, judge.backend())
    (outcome,) = in_one_loop(broker.fetch([Slate("eve", ("j1",))]))
    assert isinstance(outcome, DynaqError)
    assert "'eve'" in str(outcome)


def test_a_database_that_is_away_is_asked_again(store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    store, calls = PatientStore(store_path, read_only=True), []

    def away_twice(opened: Any) -> list[str]:
        calls.append(opened)
        if len(calls) < 3:
            raise DynaqError("the database is away")
        return list(opened.ids("candidate"))

    assert store._patiently(away_twice) == ["ann", "bob"]
    monkeypatch.setattr(module, "STORE_PATIENCE", 0.0)
    calls.clear()
    with pytest.raises(DynaqError, match="away"):
        store._patiently(away_twice)
    store.close()


def test_another_writer_of_the_folder_is_waited_for(store_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    other = open_store(store_path)
    ends = threading.Timer(0.2, other.close)
    ends.start()
    store = PatientStore(store_path, read_only=False)
    store.add_judgements([judgement_from_probabilities("ann", "j1", rule("ann", "j1"), judge=FINGERPRINT)])
    assert store.judgements(FINGERPRINT).num_rows == 1
    store.close()


def test_what_was_requested_is_remembered_of_a_bounded_number_of_applicants(
    store_path: str, judge: RuleJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPLICANTS_KEPT", 1)
    broker = JudgeBroker(store_path, judge.backend())

    async def ask() -> set[tuple[str, str]]:
        for name in ("ann", "bob"):
            await broker.fetch([Slate(name, ("j1",))])
        return await broker.requested(["ann", "bob", "eve"])

    assert asyncio.run(ask()) == {("bob", "j1")}


@pytest.mark.usefixtures("ray_session_fixture")
def test_actors_get_answers_and_errors_through_the_client(store_path: str, judge: RuleJudge) -> None:
    judge.failing = ("j9",)
    broker = start_broker(store_path, judge.backend())
    client = BrokerClient(broker)
    assert [a.job_id for a in client.fetch([Slate("ann", ("j1", "j2"))])[0]] == ["j1", "j2"]
    with pytest.raises(JudgeError, match="j9"):
        client.fetch([Slate("ann", ("j9",))])
    ray.kill(broker)


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_broker_that_was_killed_comes_back_and_pays_for_nothing_twice(store_path: str, judge: RuleJudge) -> None:
    broker = start_broker(store_path, judge.backend())
    client = BrokerClient(broker)
    before = client.fetch([Slate("ann", ("j1", "j2"))])
    ray.kill(broker, no_restart=False)
    after = client.fetch([Slate("ann", ("j1", "j2", "j3"))])
    assert [a.reward for a in after[0][:2]] == [a.reward for a in before[0]]
    assert judge.answered == [("ann", "j1"), ("ann", "j2"), ("ann", "j3")]
    ray.kill(broker)


def test_slates_of_an_applicant_always_go_to_one_broker() -> None:
    slates = [Slate(f"a{i % 40}", (f"j{i}",)) for i in range(80)]
    parts = divided(slates, 4)
    assert sorted(place for places in parts.values() for place in places) == list(range(80))
    by_applicant = {slates[place].applicant_id: broker for broker, places in parts.items() for place in places}
    assert all(by_applicant[slates[place].applicant_id] == broker for broker, ps in parts.items() for place in ps)
    assert all(len(places) > 8 for places in parts.values())
    assert list(divided(slates, 1)) == [0]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session_fixture")
def test_brokers_on_one_database_answer_together_and_come_back_together(mongo_uri: str, judge: RuleJudge) -> None:
    with open_store(mongo_uri, create=True) as store:
        store.put_records("job", [Job(id=f"j{i}", title=f"job {i}") for i in range(4)])
        store.put_records("candidate", [Candidate(id=f"a{i}") for i in range(6)])
    first = start_broker(mongo_uri, replace(judge.backend(), divisible=True), brokers=3)
    assert len(ray.get(first.brokers.remote())) == 3
    client = BrokerClient(first, payer="run")
    slates = [Slate(f"a{i}", ("j0", "j1")) for i in range(6)]
    before = client.fetch(slates)
    assert [[(a.applicant_id, a.job_id) for a in part] for part in before] == [
        [(slate.applicant_id, job_id) for job_id in slate.job_ids] for slate in slates
    ]
    assert ray.get(first.stats.remote()).judged == 12
    assert ray.get(first.bills.remote()) == {"run": 12}
    assert len(ray.get(first.requested.remote([slate.applicant_id for slate in slates]))) == 12
    ray.kill(first, no_restart=False)  # the others end with it
    after = client.fetch(slates)
    assert [[a.reward for a in part] for part in after] == [[a.reward for a in part] for part in before]
    assert len(judge.answered) == 12  # the ledger had them
    assert sorted(judge.answered) == sorted((slate.applicant_id, job_id) for slate in slates for job_id in ("j0", "j1"))
    ray.kill(first)


async def _fetch_and_stats(broker: JudgeBroker, slate: Slate) -> tuple[Any, Any]:
    return await broker.fetch([slate]), await broker.stats()


def test_a_judge_with_memory_is_told_the_histories_of_its_backend(store_path: str, judge: RuleJudge) -> None:
    memory = remembering(FINGERPRINT, 2)
    history = (PastEvent(event="apply", job_id="j9", ago="today"),)
    told = replace(judge.backend(), fingerprint=memory, histories={"ann": history})
    broker = JudgeBroker(store_path, told)
    (answers,) = in_one_loop(broker.fetch([Slate("ann", ("j1",)), Slate("bob", ("j1",))]))
    assert [answer.judge for (answer,) in answers] == [ledger_key(memory, history), FINGERPRINT]
    in_one_loop(broker.close())  # a folder has one writer
    untold = JudgeBroker(store_path, judge.backend())
    (answers,) = in_one_loop(untold.fetch([Slate("bob", ("j1",)), Slate("ann", ("j1",))]))
    assert judge.answered == [("ann", "j1"), ("bob", "j1"), ("ann", "j1")]  # of bob the ledger knows
