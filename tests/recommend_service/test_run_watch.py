"""Replicas swap runs on all or on none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynaq.errors import DynaqError
from dynaq.runs.folder import RunFolder
from dynaq.stores import ReplicaGroup, Store, open_store
from recommend_service import run_watch as module
from recommend_service.applicant_ranking import Ranker
from recommend_service.catalogue import Catalogue
from recommend_service.run_watch import CURRENT, RunWatch
from tests.support import recommend_market as market


class Replica:
    """A watch and its ranker. Each replica has a folder of promotions of its own, so that one can fail alone."""

    def __init__(self, name: str, store: Store, catalogue: Catalogue, folder: Path) -> None:
        self.folder, self._catalogue = RunFolder.at(folder / name), catalogue
        self.group: ReplicaGroup | None = store.group("service", name, 60.0)
        self.watch = RunWatch(market.config("s", None, serving=self.folder.uri, poll_seconds=1e-9), self.group)
        self.ranker: Ranker

    def wants(self, run: Path) -> Replica:
        self.folder.write_json(CURRENT, {"run": str(run)})
        return self

    def start(self) -> str | None:
        self.ranker = self.watch.first(self._catalogue)
        return self.run_id

    def look(self) -> str | None:
        self.ranker = self.watch.ranker(self._catalogue, self.ranker)
        return self.run_id

    @property
    def run_id(self) -> str | None:
        return self.ranker.run.run_id if self.ranker.run is not None else None


@pytest.fixture
def store(mongo_uri: str) -> Iterator[Store]:
    with open_store(market.make_market(mongo_uri)) as store:
        yield store


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    return tuple(  # type: ignore[return-value]
        market.make_run(tmp_path / name, {"a0": market.prefers(job)}) for name, job in (("old", 20), ("new", 11))
    )


def test_runs_are_swapped_on_all_or_none(store: Store, runs: tuple[str, str], tmp_path: Path) -> None:
    old, new = runs
    catalogue = Catalogue.load(store)
    a, b, late = (Replica(name, store, catalogue, tmp_path) for name in ("a", "b", "late"))
    assert a.wants(tmp_path / "old").start() == old
    assert b.wants(tmp_path / "old").start() == old
    a.wants(tmp_path / "new")
    b.wants(tmp_path / "missing")
    assert [a.look(), b.look(), a.look()] == [old, old, old]
    assert "missing" in str(b.watch.problem)
    assert str(a.watch.problem).startswith("another replica: ")
    assert late.wants(tmp_path / "new").start() == old  # what the others serve, not what it wants
    b.wants(tmp_path / "new")
    assert late.look() == old  # b has not looked yet
    assert b.look() == new
    assert [a.look(), late.look(), b.look()] == [new, new, new]
    assert [one.watch.problem for one in (a, b, late)] == [None, None, None]


def test_a_replica_that_cannot_serve_what_the_others_serve_does_not_start(
    store: Store, runs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.0)
    catalogue = Catalogue.load(store)
    a, b = (Replica(name, store, catalogue, tmp_path) for name in ("a", "b"))
    assert a.wants(tmp_path / "old").start() == runs[0]
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(DynaqError, match="the other replicas serve run"):
        b.wants(tmp_path / "old").start()
    a.watch.leave()
    assert b.wants(tmp_path / "new").start() == runs[1]  # alone, it need not wait for anyone
    assert not b.watch.behind
