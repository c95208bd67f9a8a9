"""Several processes on one database: a pair is paid for once, also when they are killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from dynaq.records import Candidate, Job
from dynaq.stores import Store, mongo_claims, open_store
from tests.support.shared_ledger import JOB_IDS, JUDGE, LoggingJudge, paid, start_asking

pytestmark = pytest.mark.slow

APPLICANTS = tuple(f"a{i}" for i in range(8))
RUNS, BROKERS = 2, 2  # each run divides the applicants among its brokers
KILLS = 6


@pytest.fixture
def store(mongo_uri: str) -> Iterator[Store]:
    with open_store(mongo_uri, create=True) as store:
        store.put_records("job", [Job(id=one, title=one) for one in JOB_IDS])
        store.put_records("candidate", [Candidate(id=one) for one in APPLICANTS])
        yield store


def shards() -> list[tuple[str, ...]]:
    return [APPLICANTS[broker::BROKERS] for _ in range(RUNS) for broker in range(BROKERS)]


def ledger(store: Store) -> list[tuple[str, str]]:
    return sorted((row["applicant_id"], row["job_id"]) for row in store.judgements(JUDGE).to_pylist())


EVERY_PAIR = sorted((applicant_id, job_id) for applicant_id in APPLICANTS for job_id in JOB_IDS)


def test_brokers_of_two_runs_pay_for_each_pair_once(store: Store, mongo_uri: str, tmp_path: Path) -> None:
    brokers = [start_asking(mongo_uri, tmp_path / "log", shard) for shard in shards()]
    for broker in brokers:
        broker.join(120)
    assert [broker.exitcode for broker in brokers] == [0] * 4
    assert ledger(store) == EVERY_PAIR
    assert [len(payers) for payers in paid(tmp_path / "log").values()] == [1] * len(EVERY_PAIR)
    with pymongo.MongoClient[Any](mongo_uri) as client:
        assert client.get_default_database()["claims"].count_documents({}) == 0


def test_a_pair_is_paid_for_again_only_if_its_payer_was_killed(store: Store, mongo_uri: str, tmp_path: Path) -> None:
    """Nobody can know whether a process that was killed between asking and writing had its answer."""
    generator = random.Random(0)
    brokers = [start_asking(mongo_uri, tmp_path / "log", shard) for shard in shards()]
    killed: set[int | None] = set()
    for _ in range(KILLS):
        time.sleep(generator.uniform(0.1, 0.5))
        one = generator.randrange(len(brokers))
        killed.add(brokers[one].pid)
        brokers[one].kill()
        brokers[one].join()
        brokers[one] = start_asking(mongo_uri, tmp_path / "log", shards()[one])
    for broker in brokers:
        broker.join(120)
    assert [broker.exitcode for broker in brokers] == [0] * 4
    assert ledger(store) == EVERY_PAIR
    assert all(set(payers[:-1]) <= killed for payers in paid(tmp_path / "log").values())


def test_what_a_process_claimed_is_left_to_it_while_it_is_there(
    store: Store, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(mongo_uri) as other:
        assert store.claim("a0", ["j00", "j01"], JUDGE).job_ids == ["j00", "j01"]
        assert other.claim("a0", ["j01", "j02"], JUDGE).job_ids == ["j02"]
        assert other.claim("a0", ["j01"], "another judge").job_ids == ["j01"]
        assert store.claim("a0", ["j00"], JUDGE).job_ids == ["j00"]  # its own
        store.release("a0", ["j01"], JUDGE)
        other.release("a0", ["j00"], JUDGE)  # not its own
        assert other.claim("a0", ["j00", "j01"], JUDGE).job_ids == ["j01"]
        monkeypatch.setattr(mongo_claims, "CLAIM_SECONDS", -60.0)  # nothing was heard of anybody
        assert other.claim("a0", ["j00"], JUDGE).job_ids == ["j00"]
        assert store.claim("a0", ["j00"], JUDGE).job_ids == ["j00"]


def test_a_pair_judged_meanwhile_is_not_claimed(store: Store, mongo_uri: str, tmp_path: Path) -> None:
    with open_store(mongo_uri) as other:
        answers = asyncio.run(
            LoggingJudge(tmp_path / "log", 0.0).judge_async(Candidate(id="a0"), [Job(id="j00", title="t")])
        )
        other.add_judgements(answers)
        claimed = store.claim("a0", ["j00", "j01"], JUDGE)
        assert claimed.job_ids == ["j01"]
        assert claimed.judged["job_id"].to_pylist() == ["j00"]
        assert other.claim("a0", ["j00"], JUDGE).judged.num_rows == 1
