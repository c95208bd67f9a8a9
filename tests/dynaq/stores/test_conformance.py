"""Every test runs against the folder store and against a real mongod: what a store promises, both keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import numpy as np
import pytest

from dynaq.errors import DynaqError, InputError
from dynaq.feedback.events import (
    ACTIONS,
    EXPOSURE_SCHEMA,
    FEEDBACK_SCHEMA,
    Decision,
    Exposure,
    decisions,
    events,
    exposures,
)
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, Judgement, abstention, judgement_from_probabilities
from dynaq.layout import EXTENDED
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from dynaq.stores import Kind, Store, mongo_version, open_feedback, open_store
from tests.support.events import START, event

rng = np.random.default_rng(0)
BLOCKS: dict[Kind, tuple[str, ...]] = {"job": EXTENDED.action, "candidate": EXTENDED.state}
OTHER: dict[Kind, Kind] = {"job": "candidate", "candidate": "job"}
both_kinds = pytest.mark.parametrize("kind", get_args(Kind))


def job(id_: str, **fields: object) -> Job:
    return Job.model_validate({"id": id_, "title": f"Title {id_}"} | fields)


def record(kind: Kind, id_: str) -> Any:
    return job(id_) if kind == "job" else Candidate(id=id_, bio=f"Bio {id_}")


def vectors(n: int, blocks: tuple[str, ...] = EXTENDED.action) -> dict[str, np.ndarray]:
    return {block: rng.standard_normal((n, 384)).astype(np.float32) for block in blocks}


def loaded(store: Store, kind: Kind = "job", **options: object) -> dict[str, list[np.ndarray]]:
    rows: dict[str, list[np.ndarray]] = {}
    blocks = BLOCKS[kind]
    for batch in store.vectors(kind, blocks, **options):  # type: ignore[arg-type]
        for i, id_ in enumerate(batch.ids):
            assert id_ not in rows
            rows[id_] = [batch.blocks[block][i] for block in blocks]
    return rows


def judged(job_id: str, judge: str = "j1", applicant: str = "a", p: tuple[float, ...] = (1, 0, 0, 0)) -> Judgement:
    return judgement_from_probabilities(applicant, job_id, p, judge=judge, label_mass=0.5, note="n")


def exposure(key: str, applicant: str = "a", **fields: object) -> Exposure:
    shown = {"job_ids": ("2", "1"), "propensities": (1.0, 0.25), "policy": "run-1", "preference": None}
    return Exposure(applicant, key, datetime(2026, 3, 1, tzinfo=UTC), **shown | fields)  # type: ignore[arg-type]


@pytest.fixture
def store(store_uri: str) -> Iterator[Store]:
    with open_store(store_uri, create=True) as opened:
        yield opened


def test_a_store_that_is_not_there_is_an_input_error(store_uri: str) -> None:
    with pytest.raises(InputError, match="ingest"):
        open_store(store_uri)
    with pytest.raises(InputError):
        open_store(store_uri, read_only=True)


def test_records_come_back_as_they_were_in_id_order(store: Store) -> None:
    jobs = [
        job(
            "b",
            description="Δοκιμή 職務 🙂 " + "x" * 10_000,
            technical_skills=("C++", "«naïve»; x"),
            soft_skills=("a",),
        ),
        job("a", experience_requirements=("2 years",), metadata={"place": {"city": "Köln"}, "n": [1, 2.5, None, True]}),
    ]
    store.put_records("job", jobs)
    assert list(store.records("job")) == sorted(jobs, key=lambda j: j.id)
    assert store.ids("job") == ["a", "b"]
    people = [
        Candidate.model_validate(
            {"id": "p", "bio": "я", "hard_skills": ["x"], "soft_skills": ["y"],
             "experience": [{"title": "T", "company": "C", "years": 3, "tags": ["k"]}]}
        ),
        Candidate(id="o"),
    ]  # fmt: skip
    store.put_records("candidate", people)
    assert list(store.records("candidate")) == people[::-1]
    assert store.ids("candidate") == ["o", "p"]


@both_kinds
def test_records_are_found_by_id_and_unknown_ids_are_left_out(store: Store, kind: Kind) -> None:
    store.put_records(kind, [record(kind, str(i)) for i in range(50)])
    assert list(store.records(kind, ["7", "33", "nobody"])) == [record(kind, "33"), record(kind, "7")]
    assert list(store.records(kind, [])) == []
    assert list(store.records(OTHER[kind])) == store.ids(OTHER[kind]) == []


def test_writing_again_replaces_and_repeating_changes_nothing(store: Store) -> None:
    for _ in range(2):
        store.put_records("job", [job("1", title="old"), job("2")])
        store.put_records("job", [job("1", title="new")])
    assert [(j.id, j.title) for j in store.records("job")] == [("1", "new"), ("2", "Title 2")]


@both_kinds
def test_a_version_changes_with_every_record_and_vector(
    store: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_version, "SETTLED_SECONDS", 0.0)
    seen = [store.catalogue_version()]
    store.put_records(kind, [record(kind, "a"), record(kind, "b")])
    seen.append(store.catalogue_version())
    store.put_vectors(kind, ["a"], vectors(1, BLOCKS[kind]), ["h"])
    seen.append(store.catalogue_version())
    store.delete_records(kind, ["a"])
    seen.append(store.catalogue_version())
    assert None not in seen
    assert len(set(seen)) == 4
    store.put_meta(note="nothing of the catalogue")
    assert store.catalogue_version() == seen[-1]


@both_kinds
def test_vectors_come_back_exactly_with_their_hashes(store: Store, kind: Kind) -> None:
    ids = [f"{i:04d}" for i in range(1500)]
    store.put_records(kind, [record(kind, id_) for id_ in ids])
    put = vectors(len(ids), BLOCKS[kind])
    store.put_vectors(kind, ids, put, [f"h{i}" for i in ids])
    rows = loaded(store, kind)
    assert sorted(rows) == ids
    for i in (0, 700, 1499):
        for got, block in zip(rows[ids[i]], BLOCKS[kind], strict=True):
            np.testing.assert_array_equal(got, put[block][i])
    assert store.hashes(kind) == {id_: f"h{id_}" for id_ in ids}
    assert sorted(loaded(store, kind, ids=["0003", "1400", "x"])) == ["0003", "1400"]


@both_kinds
def test_vectors_written_again_replace_the_old_ones(store: Store, kind: Kind) -> None:
    store.put_vectors(kind, ["a", "b"], vectors(2, BLOCKS[kind]), ["1", "2"])
    second = vectors(1, BLOCKS[kind])
    for _ in range(2):
        store.put_vectors(kind, ["a"], second, ["3"])
    rows = loaded(store, kind)
    assert sorted(rows) == ["a", "b"]
    np.testing.assert_array_equal(rows["a"][0], second[BLOCKS[kind][0]][0])
    assert store.hashes(kind) == {"a": "3", "b": "2"}


def test_a_missing_block_is_zeros_if_optional_and_a_problem_if_not(store: Store) -> None:
    some = tuple(b for b in EXTENDED.action if b != "experience")
    store.put_vectors("job", ["a"], vectors(1, some))
    (batch,) = store.vectors("job", EXTENDED.action, optional=("experience",))
    assert batch.ids == ["a"]
    assert not batch.blocks["experience"].any()
    assert batch.blocks["title"].any()
    assert batch.hashes == [None]
    (batch,) = store.vectors("job", EXTENDED.action)
    assert batch.ids == []
    assert [id_ for id_, _ in batch.problems] == ["a"]
    assert "experience_requirements_embeddings" in batch.problems[0][1]


def test_records_of_both_kinds_with_one_id_are_kept_apart(store: Store) -> None:
    put = {kind: vectors(1, blocks) for kind, blocks in BLOCKS.items()}
    for kind in BLOCKS:
        store.put_records(kind, [record(kind, "x")])
        store.put_vectors(kind, ["x"], put[kind], [f"of the {kind}"])
    for kind, blocks in BLOCKS.items():
        assert list(store.records(kind)) == [record(kind, "x")]
        assert store.hashes(kind) == {"x": f"of the {kind}"}
        for got, block in zip(loaded(store, kind)["x"], blocks, strict=True):
            np.testing.assert_array_equal(got, put[kind][block][0])
    store.delete_records("job", ["x"])
    assert (store.ids("job"), store.ids("candidate")) == ([], ["x"])
    assert (store.hashes("job"), store.hashes("candidate")) == ({}, {"x": "of the candidate"})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(store: Store, value: float) -> None:
    bad = vectors(2)
    bad["title"][1, 5] = value
    with pytest.raises(InputError, match=r"'b'.*title"):
        store.put_vectors("job", ["a", "b"], bad)
    assert loaded(store) == {}


@both_kinds
def test_vectors_of_another_shape_or_block_are_refused(store: Store, kind: Kind) -> None:
    with pytest.raises(InputError, match=f"^{kind} vectors: .*384"):
        store.put_vectors(kind, ["a"], {BLOCKS[kind][0]: np.zeros((1, 383), np.float32)})
    with pytest.raises(InputError, match=f"^{kind} vectors: .*nonsense"):
        store.put_vectors(kind, ["a"], {"nonsense": np.zeros((1, 384), np.float32)})
    assert store.hashes(kind) == {}


@both_kinds
def test_deleted_records_are_gone_with_their_vectors(store: Store, kind: Kind) -> None:
    store.put_records(kind, [record(kind, id_) for id_ in "abc"])
    store.put_vectors(kind, list("abc"), vectors(3, BLOCKS[kind]))
    for _ in range(2):
        store.delete_records(kind, ["b", "unknown"])
    assert store.ids(kind) == ["a", "c"]
    assert sorted(loaded(store, kind)) == ["a", "c"]


def test_the_ledger_keeps_the_first_answer_and_no_abstention(store: Store) -> None:
    store.add_judgements([judged("1"), judged("1", p=(0, 0, 0, 1)), abstention("a", "2", judge="j1", note="x")])
    store.add_judgements([judged("1", p=(0, 1, 0, 0)), judged("1", judge="j2"), judged("3", applicant="b")])
    table = store.judgements()
    assert table.schema.equals(JUDGEMENT_SCHEMA)
    rows = {(r["applicant_id"], r["job_id"], r["judge"]): r for r in table.to_pylist()}
    assert set(rows) == {("a", "1", "j1"), ("a", "1", "j2"), ("b", "3", "j1")}
    assert len(table) == 3
    first = rows["a", "1", "j1"]
    assert (first["label"], first["p_apply"], first["reward"], first["label_mass"]) == ("APPLY", 1.0, 1.0, 0.5)
    assert first["created_at"].utcoffset().total_seconds() == 0


def test_the_ledger_is_filtered_by_judge_and_applicant(store: Store) -> None:
    store.add_judgements([judged("1"), judged("1", judge="j2"), judged("1", applicant="b"), judged("2")])
    assert store.judgements("j1").num_rows == 3
    assert store.judgements("j1", ["a"]).num_rows == 2
    assert store.judgements(applicants=["b"]).num_rows == 1
    assert store.judgements("nobody").num_rows == 0
    assert store.judgements().num_rows == 4


def test_many_small_appends_to_the_ledger_are_all_kept(store: Store, store_uri: str) -> None:
    for i in range(150):
        store.add_judgements([judged(str(i))])
    assert store.judgements().num_rows == 150
    store.close()
    with open_store(store_uri) as again:
        again.add_judgements([judged("0"), judged("new")])
        assert again.judgements().num_rows == 151


def test_feedback_comes_back_as_it_was_oldest_first(store: Store) -> None:
    assert store.feedback().schema.equals(FEEDBACK_SCHEMA)
    given = [event("k2", minute=2, what="hire", source=""), event("k1", minute=1, job="Ünï \n 🙂")]
    assert store.add_feedback(given) == 2
    assert store.feedback().schema.equals(FEEDBACK_SCHEMA)
    assert list(events(store.feedback())) == given[::-1]
    assert store.add_feedback([event("k0", applicant="b")]) == 1
    assert [e.key for e in events(store.feedback(["b", "nobody"]))] == ["k0"]
    assert store.feedback([]).num_rows == 0


def test_an_event_is_kept_once_whoever_repeats_it(store: Store, store_uri: str) -> None:
    assert store.add_feedback([event("1"), event("2"), event("1", what="save")]) == 2
    assert store.add_feedback([event("2", what="ignore"), event("3")]) == 1
    assert store.add_feedback([]) == 0
    store.close()
    with open_store(store_uri) as again:
        assert again.add_feedback([event("1"), event("3"), event("4")]) == 1
        assert [(e.key, e.event) for e in events(again.feedback())] == [(k, "apply") for k in "1234"]
        assert again.add_feedback([event("4")]) == 0


def test_events_are_there_for_a_reader_and_after_reopening_without_a_close(store: Store, store_uri: str) -> None:
    for i in range(30):
        store.add_feedback([event(f"{i:02d}")])
        store.add_exposures([exposure(f"{i:02d}")])
    with open_store(store_uri, read_only=True) as reader:
        assert [e.key for e in events(reader.feedback())] == [f"{i:02d}" for i in range(30)]
        assert reader.exposures().num_rows == 30
        store.add_feedback([event("30")])
        assert reader.feedback().num_rows == 31


def test_feedback_is_taken_while_another_writes_the_catalogue(store: Store, store_uri: str) -> None:
    with open_feedback(store_uri) as feedback:
        feedback.add_feedback([event("1")])
        store.put_records("job", [job("a")])
        feedback.add_feedback([event("1"), event("2")])
        assert store.feedback().num_rows == 2
        assert feedback.feedback(["ann"]).num_rows == 2
    assert store.add_feedback([event("2"), event("3")]) == 1
    assert store.ids("job") == ["a"]


def test_exposures_come_back_as_they_were_and_once(store: Store, store_uri: str) -> None:
    assert store.exposures().schema.equals(EXPOSURE_SCHEMA)
    given = [exposure("x", preference="près de Köln\n"), exposure("y", applicant="b", policy="warm-start")]
    store.add_exposures(given)
    store.add_exposures(given[:1])
    assert store.exposures().schema.equals(EXPOSURE_SCHEMA)
    assert list(exposures(store.exposures())) == given
    store.add_exposures([exposure("z", job_ids=("3",), propensities=(0.5,))])
    store.close()
    with open_store(store_uri, read_only=True) as again:
        assert [e.key for e in exposures(again.exposures())] == ["x", "y", "z"]
        assert [e.key for e in exposures(again.exposures(["b"]))] == ["y"]


def test_times_are_kept_in_utc_to_the_millisecond(store: Store) -> None:
    at = datetime(1969, 12, 31, 23, 0, 0, 999_999, timezone(timedelta(hours=-5, minutes=-30)))
    store.add_feedback([event("1", at=at)])
    assert store.feedback()["at"].to_pylist() == [datetime(1970, 1, 1, 4, 30, 0, 999_000, UTC)]


def test_decisions_are_kept_in_order_and_once(store: Store) -> None:
    made = [
        Decision("a", "1", action, START + timedelta(minutes=i), "op", "why", f"d{i}")
        for i, action in enumerate(ACTIONS)
    ]
    store.add_decisions(made)
    store.add_decisions(made[:1])
    assert list(decisions(store.decisions())) == made
    assert store.decisions(["b"]).num_rows == 0


def test_what_is_too_old_is_deleted_and_the_rest_stays(store: Store) -> None:
    store.add_feedback([event("old", minute=0), event("new", minute=10)])
    later = START + timedelta(minutes=10)
    store.add_exposures([replace(exposure("old"), at=START), replace(exposure("new"), at=later)])
    assert store.expire_events(later) == 2
    assert store.expire_events(later) == 0
    assert (store.feedback()["key"].to_pylist(), store.exposures()["key"].to_pylist()) == (["new"], ["new"])
    assert store.add_feedback([event("new", minute=10), event("newer", minute=11)]) == 1


def test_qrels_are_replaced_as_a_whole(store: Store) -> None:
    assert store.qrels() is None
    store.put_qrels(Qrels({"a": {"1": 3, "2": 1}, "b": {"1": 2}}))
    store.put_qrels(Qrels({"b": {"9": 2.5}, "a": {"1": 3}}))
    qrels = store.qrels()
    assert qrels is not None
    assert qrels.applicants == ("b", "a")
    assert qrels.grades("b") == {"9": 2.5}
    assert qrels.grades("unknown") == {}


def test_meta_is_merged_and_outlives_the_session(store: Store, store_uri: str) -> None:
    store.put_meta(encoder="x", layout="classic")
    store.put_meta(layout="extended", attribution="©")
    store.close()
    with open_store(store_uri, read_only=True) as again:
        assert again.meta() == {"encoder": "x", "layout": "extended", "attribution": "©"}


def test_a_read_only_store_refuses_every_write(store: Store, store_uri: str) -> None:
    store.put_records("job", [job("a")])
    with open_store(store_uri, read_only=True) as reader:
        writes = (
            lambda: reader.put_records("job", [job("b")]),
            lambda: reader.put_records("candidate", [Candidate(id="b")]),
            lambda: reader.put_vectors("job", ["a"], vectors(1)),
            lambda: reader.put_vectors("candidate", ["a"], vectors(1, EXTENDED.state)),
            lambda: reader.add_judgements([judged("1")]),
            lambda: reader.add_feedback([event("1")]),
            lambda: reader.add_exposures([exposure("1")]),
            lambda: reader.put_qrels(Qrels({})),
            lambda: reader.put_meta(x=1),
            lambda: reader.delete_records("job", ["a"]),
        )
        for write in writes:
            with pytest.raises(DynaqError, match="not open for writing"):
                write()
        assert reader.ids("job") == ["a"]


def test_a_reader_sees_what_was_committed_after_it_opened(store: Store, store_uri: str) -> None:
    store.put_records("job", [job("a")])
    with open_store(store_uri, read_only=True) as reader:
        store.put_records("job", [job("b")])
        assert reader.ids("job") == ["a", "b"]


def test_closing_twice_is_closing_once(store: Store, store_uri: str) -> None:
    store.put_records("job", [Job(id="kept", title="Kept")])
    store.close()
    store.close()
    with open_store(store_uri) as again:
        assert again.ids("job") == ["kept"]
