"""A judge with memory behind its ledger: an answer is paid for once per pair and history, and older ledgers stay."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from dynaq.errors import InputError
from dynaq.judging.history import (
    MAX_TITLE,
    CandidateWithHistory,
    PastEvent,
    history_of,
    how_long_ago,
    judge_of,
    ledger_key,
    memory_of,
    newest_answers,
    remembering,
    with_history,
    without_memory,
)
from dynaq.judging.judgement import Judgement, Slate, judgement_from_probabilities
from dynaq.judging.ledger_first import LedgerJudge
from dynaq.records import Candidate, Job
from dynaq.stores import open_store

PLAIN = "likelihood-2c34b5a8798d"
MEMORY = remembering(PLAIN, 3, tokens=64)
APPLIED = PastEvent(event="apply", job_id="j1", ago="this week")
PASSED = PastEvent(event="ignore", job_id="j2", ago="earlier")


class TiringJudge:
    """Applies for a job unless the applicant did something before; knows nothing of the ledger's keys."""

    def __init__(self, fingerprint: str = MEMORY) -> None:
        self.fingerprint = fingerprint
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []

    def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        titles = tuple(event.title for event in history_of(applicant))
        self.asked += [(applicant.id, job.id, titles) for job in jobs]
        p = [0.1, 0.2, 0.3, 0.4] if titles else [0.7, 0.1, 0.1, 0.1]
        return [judgement_from_probabilities(applicant.id, job.id, p, judge=self.fingerprint) for job in jobs]


@pytest.fixture
def filled(store_uri: str) -> str:
    """A store with texts, and what a judge without memory said about one pair."""
    with open_store(store_uri, create=True) as store:
        store.put_records("job", [Job(id=f"j{i}", title=f"Title {i}") for i in range(4)])
        store.put_records("candidate", [Candidate(id=one, bio="Nurse.") for one in ("ann", "bob")])
        store.add_judgements([judgement_from_probabilities("ann", "j0", [0.0, 0.0, 1.0, 0.0], judge=PLAIN)])
    return store_uri


def test_a_fingerprint_says_how_much_its_judge_reads() -> None:
    assert (memory_of(PLAIN), memory_of(MEMORY), memory_of("ledger-0123456789ab")) == (0, 3, 0)
    assert (without_memory(PLAIN), without_memory(MEMORY)) == (PLAIN, PLAIN)
    assert judge_of(ledger_key(MEMORY, (APPLIED,))) == MEMORY
    assert (judge_of(PLAIN), judge_of(MEMORY)) == (PLAIN, MEMORY)
    assert (
        len({remembering(PLAIN, 3, tokens=64), remembering(PLAIN, 4, tokens=64), remembering(PLAIN, 3, tokens=9)}) == 3
    )


def test_told_nothing_a_judge_has_the_key_of_one_without_memory() -> None:
    assert ledger_key(MEMORY, ()) == ledger_key(PLAIN, ()) == PLAIN


def test_histories_are_the_same_by_jobs_events_coarse_times_and_order() -> None:
    key = ledger_key(MEMORY, (APPLIED, PASSED))
    assert key == ledger_key(MEMORY, (APPLIED.model_copy(update={"title": "Cook"}), PASSED))
    others = [
        (PASSED, APPLIED),
        (APPLIED,),
        (APPLIED.model_copy(update={"ago": "today"}), PASSED),
        (APPLIED.model_copy(update={"event": "save"}), PASSED),
        (APPLIED.model_copy(update={"job_id": "j3"}), PASSED),
    ]
    assert len({key, *(ledger_key(MEMORY, other) for other in others)}) == 6
    # Written down, so that a ledger of today is read tomorrow.
    assert key == "likelihood-2c34b5a8798d+memory3-c507bf91/df78fbd3d48d680f"


def test_times_are_coarse() -> None:
    assert [how_long_ago(days) for days in (0.0, 0.9, 1.0, 6.9, 7.0, 29.0, 30.0, 400.0)] == [
        *["today"] * 2,
        *["this week"] * 2,
        *["this month"] * 2,
        *["earlier"] * 2,
    ]


def test_a_history_that_a_judge_does_not_read_is_refused() -> None:
    with pytest.raises(InputError, match="has no memory; set memory"):
        ledger_key(PLAIN, (APPLIED,))
    four = tuple(APPLIED.model_copy(update={"job_id": f"j{i}"}) for i in range(4))
    with pytest.raises(InputError, match=r"history of 4 events; judge .* reads 3"):
        ledger_key(MEMORY, four)
    with pytest.raises(InputError, match="'j1' is twice"):
        ledger_key(MEMORY, (APPLIED, APPLIED))


def test_a_ledger_refuses_a_history_for_a_judge_without_memory_before_it_is_asked(filled: str) -> None:
    judge = TiringJudge(PLAIN)
    with open_store(filled) as store, pytest.raises(InputError, match="has no memory"):
        LedgerJudge(store, judge).fetch([Slate("ann", ("j3",), (APPLIED,))])
    assert judge.asked == []


def test_titles_come_from_the_store_and_are_bounded() -> None:
    ann = Candidate(id="ann", bio="Nurse.", hard_skills=("first aid",))
    assert with_history(ann, (), {}) is ann
    told = with_history(ann, (APPLIED,), {"j1": Job(id="j1", title="t" * 5000)})
    assert isinstance(told, CandidateWithHistory)
    assert told.history[0].title == "t" * MAX_TITLE
    assert told.model_dump(exclude={"history"}) == ann.model_dump()


def said(answers: list[list[Judgement]]) -> list[list[tuple[str, str | None]]]:
    return [[(one.judge, one.label) for one in part] for part in answers]


def test_an_answer_is_paid_for_once_per_pair_and_history(filled: str) -> None:
    judge = TiringJudge()
    slates = [
        Slate("ann", ("j0", "j3")),
        Slate("ann", ("j0", "j3"), (APPLIED,)),
        Slate("bob", ("j0",), (APPLIED, PASSED)),
    ]
    with open_store(filled) as store:
        first = LedgerJudge(store, judge).fetch(slates)
    assert [[answer.label for answer in answers] for answers in first] == [
        ["CLICK", "APPLY"],  # the first was there before
        ["IGNORE", "IGNORE"],
        ["IGNORE"],
    ]
    assert sorted(judge.asked) == [
        ("ann", "j0", ("Title 1",)),
        ("ann", "j3", ()),
        ("ann", "j3", ("Title 1",)),
        ("bob", "j0", ("Title 1", "Title 2")),
    ]
    keys = [PLAIN, ledger_key(MEMORY, (APPLIED,)), ledger_key(MEMORY, (APPLIED, PASSED))]
    assert [[answer.judge for answer in answers] for answers in first] == [[keys[0]] * 2, [keys[1]] * 2, [keys[2]]]
    with open_store(filled) as store:  # after a restart
        source = LedgerJudge(store, judge)
        assert said(source.fetch(slates)) == said(first)
        assert said(source.fetch(list(reversed(slates)))) == said(first)[::-1]
        assert source.paid == 0
        assert sorted(row["judge"] for row in store.judgements().to_pylist()) == sorted([*keys, keys[0], keys[1]])
    assert len(judge.asked) == 4


def test_a_judge_without_memory_reads_the_ledger_of_one_that_was_told_nothing(filled: str) -> None:
    with open_store(filled) as store:
        LedgerJudge(store, TiringJudge()).fetch([Slate("ann", ("j0", "j1", "j2", "j3"))])
        plain = LedgerJudge(store, TiringJudge(PLAIN))
        plain.fetch([Slate("ann", ("j0", "j1", "j2", "j3"))])
        assert plain.paid == 0


def test_of_each_pair_the_newest_answer_of_a_judge_is_found(filled: str) -> None:
    with open_store(filled) as store:
        source = LedgerJudge(store, TiringJudge())
        source.fetch([Slate("ann", ("j0", "j3"))])
        source.fetch([Slate("ann", ("j3",), (APPLIED,))])
        other = [judgement_from_probabilities("ann", "j3", [0.0, 1.0, 0.0, 0.0], judge=f"{PLAIN}0")]
        store.add_judgements(other)
        found = newest_answers(store.judgements(), MEMORY).to_pylist()
    assert {row["job_id"]: row["label"] for row in found} == {"j0": "CLICK", "j3": "IGNORE"}
    assert newest_answers(pa.Table.from_pylist(found), "other-0").num_rows == 0
