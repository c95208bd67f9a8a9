"""What the methods make of an engine's answers: exact numbers, through an engine whose answers are known."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence

import pytest

from dynaq.errors import InputError, JudgeError
from dynaq.judging.history import PastEvent, ledger_key, with_history
from dynaq.records import Candidate, Job
from reward_service.calibration import SHARES, fit_thresholds, random_pairs, thresholds_from_scores
from reward_service.config import JudgeConfig, Thresholds
from reward_service.engine import PairError
from reward_service.errors import JudgeUnavailable
from reward_service.llm_judge import LLMJudge, label_probabilities
from reward_service.prompts import CONTENT_FREE, ChatPrompt

APPLICANT = Candidate(id="a", bio="Nurse.", hard_skills=("first aid",))
JOBS = [Job(id=str(i), title=title, technical_skills=("x",)) for i, title in enumerate(("nurse", "cook", "pilot"))]
CUT = Thresholds(click=0.0, save=1.0, apply=2.0, scale=0.5)


class KnownEngine:
    """Gives every text the log-probability that the test set, and remembers what it was asked."""

    def __init__(self, given: dict[str, float] | None = None, letters: dict[str, float] | None = None) -> None:
        self.given, self._letters, self.asked = given or {}, letters or {}, Counter[tuple[str, str]]()
        self.failure: dict[str, Exception] = {}
        self.cut: list[str] = []

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        self.cut.append(text)
        return [(i, i + 1) for i in range(0, len(text), 40)]

    async def continuation(self, prefix: str, text: str) -> list[float]:
        self.asked[prefix, text] += 1
        await asyncio.sleep(0)
        for word, error in self.failure.items():
            if word in text and prefix != CONTENT_FREE:
                raise error
        title = text.split("\n")[0].strip()
        return [-2.0, -4.0] if prefix == CONTENT_FREE else [-3.0 + self.given[title]] * 2

    async def letters(self, prompt: ChatPrompt) -> dict[str, float]:
        return {letter: math.log(p) for letter, p in self._letters.items()}

    async def check_health(self) -> None: ...

    def shutdown(self) -> None: ...


def judge(engine: KnownEngine, **fields: object) -> LLMJudge:
    return LLMJudge(JudgeConfig.load(None, **{"thresholds": CUT, **fields}), engine)


def test_the_score_is_the_mean_gain_in_log_probability_per_token() -> None:
    engine = KnownEngine({"nurse": 2.5, "cook": 0.5, "pilot": -1.0})
    assert asyncio.run(judge(engine).scores(APPLICANT, JOBS)) == pytest.approx([2.5, 0.5, -1.0])
    answers = asyncio.run(judge(engine).judge_async(APPLICANT, JOBS))
    assert [a.label for a in answers] == ["APPLY", "CLICK", "IGNORE"]
    assert answers[0].probabilities == pytest.approx(label_probabilities(2.5, CUT))


NURSED = PastEvent(event="apply", job_id="0", ago="today", title="nurse")


def test_a_judge_with_memory_reads_the_history_that_comes_with_the_applicant() -> None:
    engine = KnownEngine({"nurse": 2.5, "cook": 0.5, "pilot": -1.0})
    remembers = judge(engine, memory=1)
    [told] = asyncio.run(remembers.judge_async(with_history(APPLICANT, (NURSED,), {}), JOBS[1:2]))
    assert any("Applied for (today): nurse\nNext job:" in prefix for prefix, _ in engine.asked)
    assert told.judge == ledger_key(remembers.fingerprint, (NURSED,))
    [plain] = asyncio.run(judge(engine).judge_async(APPLICANT, JOBS[1:2]))
    engine.asked.clear()
    [untold] = asyncio.run(judge(engine, memory=1).judge_async(APPLICANT, JOBS[1:2]))
    assert (untold.judge, untold.probabilities, untold.note) == (plain.judge, plain.probabilities, plain.note)
    assert not any("Applied" in prefix for prefix, _ in engine.asked)


def test_a_long_history_is_cut_and_the_judgement_says_so() -> None:
    history = (NURSED.model_copy(update={"title": "nurse of everything " * 10}),)
    engine = KnownEngine({"cook": 0.5})
    [told] = asyncio.run(
        judge(engine, memory=1, history_tokens=2).judge_async(with_history(APPLICANT, history, {}), JOBS[1:2])
    )
    assert "history cut to 2 tokens" in told.note


def test_a_judge_without_memory_refuses_a_history() -> None:
    with pytest.raises(InputError, match="has no memory"):
        asyncio.run(judge(KnownEngine({"cook": 0.5})).judge_async(with_history(APPLICANT, (NURSED,), {}), JOBS[1:2]))


def test_a_jobs_baseline_is_computed_once_for_all_applicants() -> None:
    engine = KnownEngine({"nurse": 1.0, "cook": 1.0, "pilot": 1.0})
    shared = judge(engine)

    async def many() -> None:
        people = [Candidate(id=str(i), bio=f"person {i}") for i in range(5)]
        await asyncio.gather(*(shared.judge_async(person, JOBS) for person in people))

    asyncio.run(many())
    assert [n for (prefix, _), n in engine.asked.items() if prefix == CONTENT_FREE] == [1, 1, 1]


def test_texts_that_were_met_are_not_cut_again_and_others_are_under_the_same_ids() -> None:
    engine = KnownEngine({"nurse": 1.0, "cook": 1.0, "pilot": 1.0})
    shared = judge(engine)
    first = asyncio.run(shared.judge_async(APPLICANT, JOBS))
    engine.cut.clear()
    again = asyncio.run(shared.judge_async(APPLICANT, JOBS))
    assert [a.probabilities for a in again] == [a.probabilities for a in first]
    assert engine.cut == []
    other = [job.model_copy(update={"technical_skills": ("y",)}) for job in JOBS]
    asyncio.run(shared.judge_async(APPLICANT.model_copy(update={"bio": "Welder."}), other))
    assert engine.cut.count("Welder.") == 1
    assert engine.cut.count("y") == 3


class HalvesEngine(KnownEngine):
    """One token for the title and four for the skills; the profile makes the two differently likely."""

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        title = text.index("\n") + 1 if "\n" in text else len(text)
        return [(0, title), *((start, start + 1) for start in range(title, len(text))[:4])]

    async def continuation(self, prefix: str, text: str) -> list[float]:
        title, rest = (-3.0, -2.0) if prefix == CONTENT_FREE else (-1.0, -1.0)
        return [title, *[rest] * (len(self.offsets(text)) - 1)]


def test_halves_count_by_the_root_of_their_tokens() -> None:
    jobs = [Job(id="1", title="nurse", technical_skills=("x",)), Job(id="2", title="clerk")]
    both, alone = asyncio.run(judge(HalvesEngine(), halves=True).scores(APPLICANT, jobs))
    assert both == pytest.approx(2.0 + 4.0 / math.sqrt(4))
    assert alone == pytest.approx(2.0)


def test_halves_are_part_of_the_judges_identity_and_without_them_it_is_as_it_was() -> None:
    plain, apart = JudgeConfig(), JudgeConfig(halves=True)
    assert JudgeConfig(halves=False).fingerprint == plain.fingerprint
    assert apart.fingerprint != plain.fingerprint
    assert not apart.calibrated  # the packaged thresholds were fitted on other scores
    with pytest.raises(InputError, match="halves is for likelihood"):
        JudgeConfig.load(None, method="choice", halves=True)


def test_the_ordinal_model_is_a_distribution_that_rises_with_the_score() -> None:
    rewards = []
    for score in (-40.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 40.0):
        p = label_probabilities(score, CUT)
        assert sum(p) == pytest.approx(1.0)
        assert min(p) >= 0.0
        rewards.append(p[0] * 1.0 + p[1] * 0.5 - p[3] * 0.1)
    assert rewards == sorted(rewards)
    assert label_probabilities(2.0, CUT)[0] == pytest.approx(0.5)


def test_one_pair_that_cannot_be_answered_is_an_abstention() -> None:
    engine = KnownEngine({"nurse": 1.0, "pilot": 1.0})
    engine.failure["cook"] = PairError("too long")
    first, second, third = asyncio.run(judge(engine).judge_async(APPLICANT, JOBS))
    assert not first.abstained
    assert not third.abstained
    assert second.abstained
    assert second.note == "too long"


@pytest.mark.parametrize("error", [JudgeUnavailable("gone"), JudgeError("broken")])
def test_an_engine_that_fails_fails_the_call(error: JudgeError) -> None:
    engine = KnownEngine({"nurse": 1.0, "pilot": 1.0})
    engine.failure["cook"] = error
    with pytest.raises(type(error)):
        asyncio.run(judge(engine).judge_async(APPLICANT, JOBS))


def test_choice_follows_the_letters_and_rotations_cancel_a_preference_for_a_letter() -> None:
    engine = KnownEngine(letters={"A": 0.6, "B": 0.2, "C": 0.1, "D": 0.05})  # always A, whatever stands behind it
    once = asyncio.run(judge(engine, method="choice").judge_async(APPLICANT, JOBS[:1]))[0]
    assert once.probabilities == pytest.approx([0.6 / 0.95, 0.2 / 0.95, 0.1 / 0.95, 0.05 / 0.95])
    assert once.label_mass == pytest.approx(0.95)
    averaged = asyncio.run(judge(engine, method="choice", rotations=4).judge_async(APPLICANT, JOBS[:1]))[0]
    assert averaged.probabilities == pytest.approx([0.25] * 4)


def test_a_judge_without_thresholds_of_its_own_says_so() -> None:
    engine = KnownEngine({"nurse": 1.0, "cook": 1.0, "pilot": 1.0})
    config = JudgeConfig(model="someone/else", method="likelihood")
    answers = asyncio.run(LLMJudge(config, engine).judge_async(APPLICANT, JOBS))
    assert all("thresholds not fitted" in answer.note for answer in answers)


def test_thresholds_leave_the_shares_of_random_pairs() -> None:
    scores = [i / 1000 for i in range(1000)]
    cut = thresholds_from_scores(scores, "scorer")
    above = [sum(s > point for s in scores) / 1000 for point in (cut.apply, cut.save, cut.click)]
    assert above == pytest.approx([SHARES["apply"], 0.15, 0.30], abs=0.002)
    assert cut.scorer == "scorer"
    with pytest.raises(InputError, match="at least"):
        thresholds_from_scores([1.0] * 10, "scorer")


def test_calibration_draws_the_same_pairs_for_the_same_seed_and_skips_unscored_ones() -> None:
    people = [Candidate(id=str(i), bio="x") for i in range(5)]
    pairs = random_pairs(people, JOBS, 60, seed=3)
    assert pairs == random_pairs(people, JOBS, 60, seed=3)
    assert pairs != random_pairs(people, JOBS, 60, seed=4)
    assert sum(len(group) for _, group in pairs) == 60

    async def score(applicant: Candidate, jobs: Sequence[Job]) -> list[float]:
        return [math.nan if job.id == "0" else float(job.id) for job in jobs]

    cut = asyncio.run(fit_thresholds(score, "s", people, JOBS, pairs=200))
    assert 1.0 <= cut.click <= cut.apply <= 2.0
