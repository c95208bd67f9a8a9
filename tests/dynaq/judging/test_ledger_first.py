"""Ledger first: paid for once, in the ledger before anyone has it, shared by all who wait; also without a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from dynaq.errors import DynaqError, JudgeError
from dynaq.judging import ledger_first
from dynaq.judging.judgement import Judgement, Slate, abstention
from dynaq.judging.ledger_first import LedgerFirst, LedgerJudge
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store
from tests.support.toy_market import ToyMarket, grade_judgement, toy_market


class PaidJudge:
    """Answers from grades; every pair costs."""

    fingerprint = "toy"

    def __init__(self, market: ToyMarket, abstains: Sequence[str] = (), fails: bool = False) -> None:
        self._grades, self._abstains, self.fails = market.grades, abstains, fails
        self.paid: list[tuple[str, str]] = []

    def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        if self.fails:
            raise JudgeError("the judge is away")
        self.paid += [(applicant.id, job.id) for job in jobs]
        return [
            abstention(applicant.id, job.id, judge="toy", note="")
            if job.id in self._abstains
            else grade_judgement(applicant.id, job.id, self._grades[applicant.id][job.id])
            for job in jobs
        ]


@pytest.fixture
def small(tmp_path: Path) -> ToyMarket:
    return toy_market(tmp_path / "store", jobs=6, applicants=2)


def test_no_judgement_is_paid_twice_also_after_the_store_was_reopened(small: ToyMarket) -> None:
    judge = PaidJudge(small)
    with open_store(small.store) as store:
        source = LedgerJudge(store, judge)
        first = source.fetch([Slate("ann00", ("job000", "job001")), Slate("ann01", ("job000",))])
        again = source.fetch([Slate("ann00", ("job001", "job002", "job000"))])
        assert [j.job_id for j in again[0]] == ["job001", "job002", "job000"]
        assert again[0][2] == first[0][0]
        assert (source.paid, source.used) == (4, 6)
    with open_store(small.store) as store:
        source = LedgerJudge(store, judge)
        replayed = source.fetch([Slate("ann00", ("job000", "job001", "job002")), Slate("ann01", ("job000",))])
        assert source.paid == 0
    assert len(judge.paid) == len(set(judge.paid)) == 4
    assert [j.reward for j in replayed[0][:2]] == [j.reward for j in first[0]]


def test_another_judge_has_a_ledger_of_its_own(small: ToyMarket) -> None:
    with open_store(small.store) as store:
        LedgerJudge(store, PaidJudge(small)).fetch([Slate("ann00", ("job000",))])
        other = PaidJudge(small)
        other.fingerprint = "other"  # type: ignore[misc]
        LedgerJudge(store, other).fetch([Slate("ann00", ("job000",))])
        assert other.paid == [("ann00", "job000")]


def test_an_abstention_is_passed_on_and_asked_again(small: ToyMarket) -> None:
    judge = PaidJudge(small, abstains=["job001"])
    with open_store(small.store) as store:
        source = LedgerJudge(store, judge)
        (answers,) = source.fetch([Slate("ann00", ("job000", "job001"))])
        assert [j.abstained for j in answers] == [False, True]
        source.fetch([Slate("ann00", ("job000", "job001"))])
        assert judge.paid.count(("ann00", "job001")) == 2
        assert judge.paid.count(("ann00", "job000")) == 1
        assert store.judgements().num_rows == 1


def test_what_was_judged_before_a_failure_is_kept(small: ToyMarket) -> None:
    judge = PaidJudge(small)
    with open_store(small.store) as store:
        source = LedgerJudge(store, judge)
        source.fetch([Slate("ann00", ("job000",))])
        judge.fails = True
        with pytest.raises(JudgeError, match="away"):
            source.fetch([Slate("ann00", ("job000", "job001"))])
        judge.fails = False
        source.fetch([Slate("ann00", ("job000", "job001"))])
    assert judge.paid == [("ann00", "job000"), ("ann00", "job001")]


@pytest.mark.parametrize(("slate", "message"), [(("eve", "job000"), "'eve'"), (("ann00", "job999"), "'job999'")])
def test_unknown_records_are_named(small: ToyMarket, slate: tuple[str, str], message: str) -> None:
    with open_store(small.store) as store, pytest.raises(DynaqError, match=f"{message} has no text in the store"):
        LedgerJudge(store, PaidJudge(small)).fetch([Slate(slate[0], (slate[1],))])


class GatedJudge(PaidJudge):
    """Answers when `gate` is open. started: calls that came in; cancelled: those that were cancelled."""

    def __init__(self, market: ToyMarket, **how: Any) -> None:
        super().__init__(market, **how)
        self.gate = asyncio.Event()
        self.started = self.cancelled = 0
        self.others: Callable[[list[Judgement]], list[Judgement]] = lambda answers: answers

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        self.started += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.others(self.judge(applicant, jobs))


Scene = Callable[[LedgerFirst, GatedJudge, Store], Awaitable[None]]
ANN = [Slate("ann00", ("job000", "job001"))]


def play(small: ToyMarket, scene: Scene, how: dict[str, Any] | None = None, **options: Any) -> None:
    """Run a scene with a judge behind the ledger of a store."""

    async def on_stage() -> None:
        with open_store(small.store) as store:
            judge = GatedJudge(small, **how or {})
            await scene(LedgerFirst(store, judge, "toy", **options), judge, store)

    asyncio.run(on_stage())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def arrived(judge: GatedJudge, calls: int = 1) -> None:
    """Until so many calls are with the judge."""
    await until(lambda: judge.started >= calls)


def test_callers_that_want_the_same_pair_share_one_call(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        first = asyncio.create_task(ledger.fetch(ANN))
        await arrived(judge)
        overlapping = asyncio.create_task(ledger.fetch([Slate("ann00", ("job001", "job002"))]))
        in_hand = asyncio.create_task(ledger.judge_async(Candidate(id="ann00"), [Job(id="job000", title="t")]))
        await arrived(judge, 2)
        judge.gate.set()
        [[zero, one]], [[same_one, _]], [same_zero] = await asyncio.gather(first, overlapping, in_hand)
        assert (zero, one) == (same_zero, same_one)
        assert judge.paid == [("ann00", "job000"), ("ann00", "job001"), ("ann00", "job002")]

    play(small, scene)


def test_an_answer_is_handed_out_only_after_the_ledger_has_it(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        may_write, add = threading.Event(), store.add_judgements

        def slow(judgements: Sequence[Judgement]) -> None:
            may_write.wait(30)
            add(judgements)

        store.add_judgements = slow  # type: ignore[method-assign]
        judge.gate.set()
        call = asyncio.create_task(ledger.fetch(ANN))
        await until(lambda: len(judge.paid) == 2)
        done, _ = await asyncio.wait([call], timeout=0.1)
        assert not done
        may_write.set()
        await call
        assert store.judgements("toy").num_rows == 2

    play(small, scene)


def test_a_ledger_that_cannot_be_written_fails_the_call_and_the_next_one_pays_again(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        def full(_: Sequence[Judgement]) -> None:
            raise DynaqError("the disk is full")

        judge.gate.set()
        add, store.add_judgements = store.add_judgements, full  # type: ignore[method-assign]
        with pytest.raises(DynaqError, match="full"):
            await ledger.fetch(ANN)
        store.add_judgements = add  # type: ignore[method-assign]
        await ledger.fetch([Slate("ann01", ("job000",))])
        assert store.judgements("toy").column("applicant_id").to_pylist() == ["ann01"]
        await ledger.fetch(ANN)
        assert judge.paid.count(("ann00", "job000")) == 2

    play(small, scene)


@pytest.mark.parametrize("leaves", ["first", "second"])
def test_a_caller_that_goes_away_takes_nothing_from_the_other(small: ToyMarket, leaves: str) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        first = asyncio.create_task(ledger.fetch(ANN))
        await arrived(judge)
        second = asyncio.create_task(ledger.fetch([Slate("ann00", ("job001",))]))
        await asyncio.sleep(0.05)
        gone, stays = (first, second) if leaves == "first" else (second, first)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        judge.gate.set()
        [answers] = await stays
        assert answers[-1].job_id == "job001"
        assert judge.paid == [("ann00", "job000"), ("ann00", "job001")]

    play(small, scene)


def test_a_request_does_not_carry_the_context_of_the_caller_who_was_first(small: ToyMarket) -> None:
    """Ray Serve cancels the calls that were made in the context of a request whose client went away."""
    caller: ContextVar[str] = ContextVar("caller", default="nobody")
    seen = []

    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        def look(answers: list[Judgement]) -> list[Judgement]:
            seen.append(caller.get())
            return answers

        judge.others = look
        judge.gate.set()
        caller.set("a request")
        await ledger.fetch(ANN)

    play(small, scene)
    assert seen == ["nobody"]


def test_a_request_that_nobody_waits_for_is_cancelled_and_can_be_made_again(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        calls = [asyncio.create_task(ledger.fetch(ANN)) for _ in range(2)]
        await arrived(judge)
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        again = asyncio.create_task(ledger.fetch(ANN))
        await arrived(judge, 2)
        assert judge.cancelled == 1
        judge.gate.set()
        [answers] = await again
        assert [answer.job_id for answer in answers] == ["job000", "job001"]
        assert len(judge.paid) == 2

    play(small, scene)


def test_what_was_paid_for_is_kept_also_when_nobody_waits_any_more(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        may_write, add = threading.Event(), store.add_judgements

        def slow(judgements: Sequence[Judgement]) -> None:
            may_write.wait(30)
            add(judgements)

        store.add_judgements = slow  # type: ignore[method-assign]
        judge.gate.set()
        call = asyncio.create_task(ledger.fetch(ANN))
        await until(lambda: len(judge.paid) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        may_write.set()
        await ledger.fetch(ANN)
        assert len(judge.paid) == 2

    play(small, scene)


def test_a_failure_reaches_all_who_wait_and_the_next_may_ask_again(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        calls = [asyncio.create_task(ledger.fetch(ANN)) for _ in range(3)]
        await arrived(judge)
        judge.gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["the judge is away"] * 3
        assert store.judgements("toy").num_rows == 0
        judge.fails = False
        await ledger.fetch(ANN)
        assert len(judge.paid) == 2

    play(small, scene, {"fails": True})


def test_a_judge_that_answers_other_jobs_fails_and_nothing_is_written(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        judge.gate.set()
        judge.others = lambda answers: answers[::-1]
        with pytest.raises(JudgeError, match="other jobs than asked for applicant 'ann00'"):
            await ledger.fetch(ANN)
        assert store.judgements("toy").num_rows == 0

    play(small, scene)


def test_an_abstention_is_shared_and_not_kept(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        calls = [asyncio.create_task(ledger.fetch(ANN)) for _ in range(2)]
        await arrived(judge)
        judge.gate.set()
        for [answers] in await asyncio.gather(*calls):
            assert [answer.abstained for answer in answers] == [False, True]
        assert store.judgements("toy").column("job_id").to_pylist() == ["job000"]
        await ledger.fetch(ANN)
        assert judge.paid.count(("ann00", "job001")) == 2
        assert (ledger.judged, ledger.abstained, ledger.replayed) == (3, 2, 1)

    play(small, scene, {"abstains": ["job001"]})


@pytest.mark.parametrize(("kept", "sees_it"), [(0, True), (2, False)])
def test_without_memory_every_call_sees_what_others_wrote(small: ToyMarket, kept: int, sees_it: bool) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        judge.gate.set()
        await ledger.fetch([Slate("ann00", ("job000",))])
        store.add_judgements([grade_judgement("ann00", "job001", 3)])  # another process
        await ledger.fetch(ANN)
        assert (("ann00", "job001") not in judge.paid) is sees_it

    play(small, scene, applicants_kept=kept)


def test_memory_is_bounded_and_what_was_forgotten_is_read_again(
    small: ToyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_first, "APPLICANTS_KEPT", 1)
    monkeypatch.setattr(ledger_first, "JOBS_KEPT", 2)

    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        judge.gate.set()
        everything = [Slate(one, tuple(f"job00{i}" for i in range(6))) for one in ("ann00", "ann01")]
        for _ in range(3):
            answers = await ledger.fetch(everything)
            assert [[a.job_id for a in row] for row in answers] == [list(slate.job_ids) for slate in everything]
        assert len(judge.paid) == len(set(judge.paid)) == 12
        assert [len(kept) for kept in (ledger._known, ledger._applicants, ledger._jobs)] == [1, 1, 2]

    play(small, scene, applicants_kept=1)


def test_a_ledger_that_is_not_kept_is_neither_read_nor_written(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        store.add_judgements([grade_judgement("ann00", "job000", 3)])
        judge.gate.set()
        await ledger.fetch(ANN)
        assert len(judge.paid) == 2
        assert store.judgements("toy").num_rows == 1
        [[answer]] = await ledger.fetch([Slate("ann00", ("job005",))])
        assert (answer.applicant_id, answer.job_id) == ("ann00", "job005")
        assert not ledger._applicants  # a replay needs no texts

    play(small, scene, keep=False)


def test_many_callers_at_once_pay_for_every_pair_once(small: ToyMarket) -> None:
    async def scene(ledger: LedgerFirst, judge: GatedJudge, store: Store) -> None:
        judge.gate.set()

        async def caller(number: int) -> None:
            for turn in range(6):
                await ledger.fetch([Slate(f"ann0{number % 2}", (f"job00{turn}", f"job00{(turn + number) % 6}"))])

        await asyncio.gather(*(caller(number) for number in range(12)))
        assert len(judge.paid) == len(set(judge.paid)) == store.judgements("toy").num_rows

    play(small, scene, applicants_kept=0)


def test_a_judge_without_a_loop_answers_also_where_a_loop_runs(small: ToyMarket) -> None:
    async def notebook() -> None:
        with open_store(small.store) as store:
            [answers] = LedgerJudge(store, PaidJudge(small)).fetch(ANN)
            assert [answer.job_id for answer in answers] == ["job000", "job001"]

    asyncio.run(notebook())
