"""Nothing of a person who was forgotten is left, wherever it stood, and everybody else is as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from cluster import trainer
from dynaq.errors import DynaqError
from dynaq.job_index import with_index
from dynaq.records import Candidate
from dynaq.rights import forgetting
from dynaq.rights.export import export_person
from dynaq.rights.forgetting import forget_in_folder
from dynaq.rights.record import erased_at, forget_in_store
from dynaq.runs.folder import CONFIG, RunFolder, cohort_digest
from dynaq.runs.q_table import ServedRun
from dynaq.stores import open_store
from dynaq.stores.segments import SegmentFolder
from tests.support.planted import (
    COHORT,
    DIMENSION,
    JOBS,
    LEFT,
    PERSON,
    WORDS,
    cache_of,
    found_in_folder,
    found_in_mongo,
    found_in_run,
    plant,
    planted_market,
    rows_of,
)
from tests.support.toy_market import ToyMarket
from tests.support.trained_run import CONFIG_OF_RUN, trained_run


@pytest.fixture
def market(tmp_path: Path) -> ToyMarket:
    return planted_market(tmp_path / "store")


@pytest.mark.parametrize("kind", ["folder", "mongo"])
def test_no_byte_of_a_store_holds_them_and_the_others_stay(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = str(tmp_path / "store") if kind == "folder" else request.getfixturevalue("mongo_uri")

    def held() -> dict[str, list[str]]:
        return found_in_folder(Path(uri)) if kind == "folder" else found_in_mongo(uri)

    with open_store(uri, create=True) as store:
        store.put_meta(layout="extended", dimension=DIMENSION)
        store.put_records("candidate", [Candidate(id="ann00", bio="I stay.")])
        plant(store)
        store.put_records(
            "candidate", [Candidate(id=PERSON, bio=f"Of late {WORDS[1]}.")]
        )  # replaces, as an update does
        assert held()
    assert {word for words in held().values() for word in words} >= {PERSON, WORDS[1]}
    with open_store(uri) as store:
        exported = export_person(store, PERSON)
        counts = forget_in_store(store, PERSON)
        assert held() == {}  # also while the store is still open
        assert {name for name, count in counts.items() if count} == set(counts)
        assert store.ids("candidate") == ["ann00"]
        assert (store.feedback().num_rows, store.exposures().num_rows) == (1, 1)
        qrels = store.qrels()
        assert qrels is not None
        assert qrels.applicants == ("ann00",)
        (note,) = store.forgotten()
        assert set(note) == {"hash", "salt", "at"}
        assert erased_at([note], PERSON) == note["at"]
        assert erased_at([note], "ann00") is None
        assert sum(forget_in_store(store, PERSON).values()) == 0
        assert len(store.forgotten()) == 2  # the record is only added to
    assert held() == {}
    assert exported["profile"][0]["bio"].endswith(f"{WORDS[1]}.")
    parts = ("vectors", "judgements", "relevance", "feedback", "exposures", "decisions")
    assert all(exported[part] for part in parts)
    assert json.loads(json.dumps(exported))["meaning"].keys() >= set(parts)


@pytest.mark.parametrize("step", ["_commit", "_write", "unlink"])
def test_a_store_that_was_interrupted_is_whole_and_repeating_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    uri = tmp_path / "store"
    with open_store(uri, create=True) as store:
        store.put_meta(layout="extended", dimension=DIMENSION)
        plant(store)
    calls = 0

    def killed(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        store = open_store(uri)
        patch.setattr(Path if step == "unlink" else SegmentFolder, step, killed)
        with pytest.raises(KeyboardInterrupt):
            forget_in_store(store, PERSON)
        with suppress(KeyboardInterrupt):
            store.close()
        assert calls
    with open_store(uri) as store:
        assert store.feedback(["ann00"]).num_rows == 1
        forget_in_store(store, PERSON)
    assert found_in_folder(tmp_path) == {}


def same(found: tuple[Any, Any] | None, expected: tuple[Any, Any] | None) -> None:
    """Check that two agents know the same columns and have the same Q of them, to the bit."""
    assert found is not None
    assert expected is not None
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_finished_run_loses_one_agent_of_a_block_and_serves_the_others(market: ToyMarket, tmp_path: Path) -> None:
    folder = trained_run(RunFolder.at(tmp_path / "run"), market, cache_of(market), COHORT)
    folder.write_bytes("report.html", f"<p>{WORDS[1]}, {PERSON}".encode())
    folder.write_bytes("events.out.tfevents.1.host.curves", b"means")
    folder.write_json("tune/state.json", {"failures": {PERSON: "why", "ann00": "why"}, "text": json.dumps([PERSON])})
    before = ServedRun.open(folder.uri)
    expected = {one: before.q_values(one) for one in LEFT}
    assert found_in_run(folder)
    with open_store(market.store, read_only=True) as store:
        own = export_person(store, PERSON, [str(tmp_path)])
    assert (len(own["runs"][0]["q_values"]), len(own["runs"][0]["recommendations"])) == (JOBS, JOBS)
    assert own["job_titles"]["job001"] == "Job job001"

    erased = forget_in_folder(str(tmp_path), PERSON)  # the folder that holds the run, not the run itself

    assert (erased.runs, erased.reports, erased.unresumable) == ([folder.uri], [folder.uri], [])
    assert found_in_run(folder) == {}
    assert rows_of(folder) == len(LEFT)
    after = ServedRun.open(folder.uri)
    assert (after.earlier_ids, after.run_id == before.run_id) == (frozenset({before.run_id}), False)
    for one, q in expected.items():
        same(after.q_values(one), q)
    assert after.q_values(PERSON) is None
    with pytest.raises(DynaqError):
        before.q_values("ann01")  # a service with the old places finds nothing, rather than somebody else's row
    assert set(folder.read_table("recommendations.parquet")["applicant_id"].to_pylist()) == set(LEFT)
    assert folder.read_json("tune/state.json")["failures"] == {"forgotten": "why", "ann00": "why"}
    assert forget_in_folder(folder.uri, PERSON).runs == []
    forget_in_folder(folder.uri, "ann01")
    assert set(ServedRun.open(folder.uri).places) == {"ann00", "ann02", "ann03"}
    assert ServedRun.open(folder.uri).earlier_ids == {before.run_id, after.run_id}


def test_a_resumed_run_does_not_bring_them_back(market: ToyMarket, tmp_path: Path) -> None:
    folder = trained_run(RunFolder.at(tmp_path / "run"), market, cache_of(market), COHORT, blocks=1)
    whole = trained_run(RunFolder.at(tmp_path / "whole"), market, cache_of(market), COHORT)
    forget_in_folder(folder.uri, PERSON)
    with open_store(market.store) as store:
        forget_in_store(store, PERSON)
    assert folder.read_yaml(CONFIG)["cohort"] == cohort_digest(LEFT)
    trained_run(folder, market, cache_of(market), LEFT)
    assert found_in_run(folder) == {}
    assert found_in_folder(market.store) == {}
    resumed, never = ServedRun.open(folder.uri), ServedRun.open(whole.uri)
    assert set(resumed.places) == set(LEFT)
    for one in LEFT:  # as they would have been
        same(resumed.q_values(one), never.q_values(one))


@pytest.mark.parametrize("step", ["replace_blocks", "_unpointed", "_without", "_forget_in_cohort"])
def test_what_was_interrupted_is_finished_by_repeating_it(
    market: ToyMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = trained_run(RunFolder.at(tmp_path / "run"), market, cache_of(market), COHORT)
    expected = ServedRun.open(folder.uri).q_values("ann01")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, step, killed)
        with pytest.raises(KeyboardInterrupt):
            forget_in_folder(folder.uri, PERSON)
    same(ServedRun.open(folder.uri).q_values("ann01"), expected)  # never a broken run
    forget_in_folder(folder.uri, PERSON)
    assert found_in_run(folder) == {}
    same(ServedRun.open(folder.uri).q_values("ann01"), expected)


def test_agents_of_a_large_catalogue_lose_one_with_their_candidates(tmp_path: Path) -> None:
    market = planted_market(tmp_path / "store", jobs=90)
    config = CONFIG_OF_RUN.model_copy(update={"candidates": 64, "planning_batch": 32})
    paths = [RunFolder.at(tmp_path / "runs" / name) for name in ("run", "whole")]
    folder, whole = (
        trained_run(path, market, with_index(cache_of(market)), COHORT, blocks, config)
        for path, blocks in zip(paths, (1, None), strict=True)
    )
    assert found_in_run(folder)
    forget_in_folder(folder.uri, PERSON)
    trained_run(folder, market, with_index(cache_of(market)), LEFT, config=config)
    served = ServedRun.open(whole.uri)
    expected = {one: served.q_values(one) for one in LEFT}
    assert {len(columns) for columns, _ in expected.values()} == {64}  # type: ignore[misc]
    with open_store(market.store, read_only=True) as store:
        (own,) = export_person(store, PERSON, [whole.uri])["runs"]
    assert len(own["q_values"]) == 64
    forget_in_folder(whole.uri, PERSON)
    for run in (folder, whole):
        assert found_in_run(run) == {}
        left = ServedRun.open(run.uri)
        assert set(left.places) == set(LEFT)
        for one in LEFT:
            same(left.q_values(one), expected[one])


def test_the_tables_of_a_large_run_lose_them_part_by_part(
    market: ToyMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "PARTITIONED_ABOVE", len(LEFT))
    monkeypatch.setattr(trainer, "PART_BLOCKS", 1)
    folder = trained_run(RunFolder.at(tmp_path / "run"), market, cache_of(market), COHORT)
    tables = ("metrics.parquet", "recommendations.parquet")
    assert all(folder.in_parts(name) for name in tables)
    with open_store(market.store, read_only=True) as store:
        (own,) = export_person(store, PERSON, [folder.uri])["runs"]
    assert own["metrics"]
    assert len(own["recommendations"]) == JOBS
    forget_in_folder(folder.uri, PERSON)
    assert found_in_run(folder) == {}
    for again in (False, True):
        if again:  # by a resumed run, whose cohort alone would no longer be written in parts
            trained_run(folder, market, cache_of(market), LEFT)
        for name in tables:
            assert folder.in_parts(name)
            assert set(folder.read_table(name)["applicant_id"].to_pylist()) == set(LEFT)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of a folder on S3, with `{}` for its name."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    query = f"?scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    filesystem, path = fs.FileSystem.from_uri(f"s3://people{query}")
    filesystem.create_dir(path)
    yield f"s3://people/{{}}{query}"
    server.stop()


@pytest.mark.slow
def test_a_run_on_s3_is_as_one_on_disk(market: ToyMarket, bucket: str) -> None:
    folder = trained_run(RunFolder.at(bucket.format("runs/one")), market, cache_of(market), COHORT)
    assert found_in_run(folder)
    assert forget_in_folder(bucket.format("runs"), PERSON).runs == [folder.uri]
    assert found_in_run(folder) == {}
    assert rows_of(folder) == len(LEFT)
    assert set(ServedRun.open(folder.uri).places) == set(LEFT)


def test_networks_are_listed_and_no_longer_name_them(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "networks")
    folder.write_json("pretrained.json", {"applicants": ["ann00", PERSON], "layout": "extended"})
    assert forget_in_folder(str(tmp_path), PERSON).networks == [folder.uri]
    assert folder.read_json("pretrained.json") == {"applicants": ["ann00"], "layout": "extended", "forgotten": 1}
    assert forget_in_folder(str(tmp_path), PERSON).networks == [folder.uri]  # until they are fitted again
    assert folder.read_json("pretrained.json")["forgotten"] == 1


def test_a_file_that_keeps_them_is_no_success(
    market: ToyMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained_run(RunFolder.at(tmp_path / "run"), market, cache_of(market), COHORT)
    monkeypatch.setattr(forgetting, "_forget_in_other_files", lambda *_: None)
    folder.write_bytes("notes.txt", f"{PERSON} called".encode())
    with pytest.raises(DynaqError, match=r"still names the applicant in notes\.txt"):
        forget_in_folder(folder.uri, PERSON)
