"""Replicas of a service agree: on limits that hold in sum, and on one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynaq.stores import ReplicaGroup, RunSource, Store, open_store

pytestmark = pytest.mark.slow

OLD, NEW = RunSource("runs/old", "run-1"), RunSource("runs/$new", "run-2")

Join = Callable[..., ReplicaGroup]


@pytest.fixture
def store(mongo_uri: str) -> Iterator[Store]:
    with open_store(mongo_uri, create=True) as store:
        yield store


@pytest.fixture
def member(store: Store) -> Join:
    def member(name: str, lease: float = 60.0, group: str = "serving") -> ReplicaGroup:
        made = store.group(group, name, lease)
        assert made is not None
        return made

    return member


def test_a_limit_holds_over_all_replicas(member: Join) -> None:
    replicas = [member("a"), member("b"), member("c")]

    def take(i: int) -> float:
        return replicas[i % 3].take("events 10.0.0.1", 1, 0.001, 20)

    with ThreadPoolExecutor(6) as pool:
        waits = list(pool.map(take, range(60)))
    assert waits.count(0.0) == 20
    assert all(900 < wait <= 1000 for wait in waits if wait)
    assert replicas[0].take("events 10.0.0.2", 20, 0.001, 20) == 0  # another caller
    assert member("d", group="other service").take("events 10.0.0.1", 20, 0.001, 20) == 0


def test_a_bucket_fills_with_the_servers_time(member: Join) -> None:
    one = member("a")
    assert one.take("b", 5, 1000.0, 5) == 0
    assert one.take("b", 6, 1000.0, 5) > 0  # never more than its size
    assert any(one.take("b", 5, 1000.0, 5) == 0 for _ in range(100))


def test_a_run_is_agreed_on_when_all_are_ready_for_it(member: Join) -> None:
    a, b = member("a"), member("b")
    assert a.join() is None
    assert a.agree(OLD, None).serving == OLD  # alone
    assert b.join() == OLD
    assert b.agree(OLD, None).serving == OLD
    assert a.agree(NEW, None).serving == OLD
    assert b.agree(OLD, "it is broken").serving == OLD
    refused = a.agree(NEW, None)
    assert (refused.serving, refused.others, list(refused.problems)) == (OLD, 1, ["it is broken"])
    assert b.agree(NEW, None).serving == NEW
    assert a.agree(NEW, None).serving == NEW


def test_none_is_agreed_on_without_one_that_has_just_joined(member: Join) -> None:
    a, b = member("a"), member("b")
    a.join()
    a.agree(OLD, None)
    assert b.join() == OLD
    assert a.agree(NEW, None).serving == OLD
    assert b.agree(NEW, None).serving == NEW


def test_one_that_left_or_was_killed_is_not_waited_for(member: Join) -> None:
    a, gone, killed = member("a"), member("b"), member("c")
    for one in (a, gone, killed):
        one.join()
    gone.leave()
    assert a.agree(OLD, None).serving is None  # the killed one may still come to be ready
    later = member("a", lease=0.0)  # when the lease of the killed one is over
    assert later.agree(OLD, None).serving == OLD
