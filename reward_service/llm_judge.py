"""The judge itself: it turns records into prompts, and an engine's answers into distributions over the four labels."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from cachetools import FIFOCache, LRUCache

from dynaq.judging.history import history_of, ledger_key
from dynaq.judging.judgement import LABELS, Judgement, abstention, judgement_from_probabilities
from dynaq.records import Candidate, Job
from reward_service.config import JudgeConfig, Thresholds
from reward_service.engine import Engine, PairError, wait_for_all
from reward_service.prompts import (
    CONTENT_FREE,
    ChatPrompt,
    Text,
    configured_prompt,
    history_text,
    job_text,
    likelihood_prefix,
    likelihood_suffix,
    profile_text,
    title_line,
)

Probabilities = tuple[float, float, float, float]

UNCONDITIONAL_KEPT = 200_000  # jobs whose likelihood without a profile is cached: about 70 MB
CUT_TEXTS_KEPT = 10_000  # profiles and jobs whose texts are cached: about 30 MB of postings


def label_probabilities(score: float, cut: Thresholds) -> Probabilities:
    """Ordinal logistic model (McCullagh 1980): p over LABELS from one score and three rising cut points."""
    apply, save, click = (_sigmoid((score - point) / cut.scale) for point in (cut.apply, cut.save, cut.click))
    return (apply, save - apply, click - save, 1.0 - click)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


class LLMJudge:
    """Judges pairs with one engine. Its answers depend only on the pair, its history and the configuration."""

    def __init__(self, config: JudgeConfig, engine: Engine) -> None:
        self.config = config
        self.engine = engine
        self.fingerprint = config.fingerprint
        self._uncalibrated = "" if config.calibrated else "thresholds not fitted for this judge"
        self._unconditional: FIFOCache[str, asyncio.Task[array[float]]] = FIFOCache(UNCONDITIONAL_KEPT)
        self._texts: LRUCache[Hashable, Text] = LRUCache(CUT_TEXTS_KEPT)

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order; an abstention for a pair that cannot be answered.

        Raises JudgeError, JudgeUnavailable when the engine fails, and then for the whole call; InputError for a history
        that this judge does not read.
        """
        profile = self.applicant_text(applicant)
        return await wait_for_all([self._pair(applicant, profile, job) for job in jobs])

    async def scores(self, applicant: Candidate, jobs: Sequence[Job]) -> list[float]:
        """The raw `likelihood` scores on which thresholds are fitted; NaN for a pair that cannot be scored."""
        profile = self.applicant_text(applicant)
        texts = [self._job_text(job) for job in jobs]
        return await wait_for_all([self._score_or_nan(profile, text) for text in texts])

    async def orders(self, applicant: Candidate, jobs: Sequence[Job]) -> list[list[tuple[float, ...]]]:
        """Per job, the `choice` distribution over LABELS under each of the four orders of the options."""
        profile = self.applicant_text(applicant)
        prompts = [[self._prompt(profile, self._job_text(job), r) for r in range(len(LABELS))] for job in jobs]
        answers = await wait_for_all([self.engine.letters(prompt) for group in prompts for prompt in group])
        pairs = zip([prompt for group in prompts for prompt in group], answers, strict=True)
        flat = [_letters_to_labels(prompt, answer)[0] for prompt, answer in pairs]
        return [list(flat[i : i + len(LABELS)]) for i in range(0, len(flat), len(LABELS))]

    def applicant_text(self, applicant: Candidate) -> Text:
        """What a prompt shows of an applicant. Raises InputError for a history that this judge does not read."""
        profile, history = self._profile(applicant), history_of(applicant)
        if not history:
            return profile
        ledger_key(self.fingerprint, history)  # checks it
        return replace(profile, history=history_text(history, self.config.history_limit, self.engine.offsets))

    async def _score_or_nan(self, profile: Text, job: Text) -> float:
        try:
            return math.nan if profile.empty or job.empty else await self._score(profile, job)
        except PairError:
            return math.nan

    async def _pair(self, applicant: Candidate, profile: Text, job: Job) -> Judgement:
        text = self._job_text(job)
        judge = ledger_key(self.fingerprint, history_of(applicant))
        try:
            if profile.empty or text.empty:
                raise PairError(f"the {'profile' if profile.empty else 'job'} has no readable text")
            if self.config.method_name == "likelihood":
                score = await self._score(profile, text)
                p, mass = label_probabilities(score, self.config.cut_points), 1.0
            else:
                p, mass = await self._choice(profile, text)
        except PairError as error:
            return abstention(applicant.id, job.id, judge=judge, note=str(error))
        return judgement_from_probabilities(
            applicant.id,
            job.id,
            p,
            judge=judge,
            label_mass=mass,
            values=self.config.label_values,
            note=self._note(profile, text),
        )

    def _profile(self, applicant: Candidate) -> Text:
        limit, offsets = self.config.profile_limit, self.engine.offsets
        read = (applicant.bio, applicant.hard_skills, applicant.soft_skills, applicant.experience)
        return self._kept(read, lambda: profile_text(applicant, limit, offsets))

    def _job_text(self, job: Job) -> Text:
        prose = self.config.method_name == "choice"  # on prose, `likelihood` would measure style rather than fit
        limit, offsets, condense = self.config.job_limit, self.engine.offsets, self.config.condense
        read = (job.title, job.technical_skills, job.soft_skills, job.experience_requirements, job.description)
        return self._kept(read, lambda: job_text(job, limit, offsets, description=prose, condense=condense))

    def _kept(self, read: Hashable, text: Callable[[], Text]) -> Text:
        """A text that was made before of the same fields, else a new one: cutting takes longer than a warm call may."""
        if read not in self._texts:
            self._texts[read] = text()
        return self._texts[read]

    def _note(self, profile: Text, job: Text) -> str:
        notes = [self._uncalibrated] if self._uncalibrated else []
        if profile.was_cut:
            notes.append(f"profile cut to {self.config.profile_limit} tokens")
        if profile.history and profile.history.was_cut:
            notes.append(f"history cut to {self.config.history_limit} tokens")
        if job.was_cut:
            done = "condensed" if job.was_condensed else "cut"
            notes.append(f"job {done} to {self.config.job_limit} tokens")
        return "; ".join(notes)

    async def _score(self, profile: Text, job: Text) -> float:
        """How much likelier the profile makes the job's text than a content-free profile does, in nats.

        The mean gain of a token. With `halves`, the gains of the title and of the rest are summed and divided by the
        root of their number of tokens, as sums of equally noisy gains are, and added.
        """
        suffix = likelihood_suffix(job)
        given = self.engine.continuation(likelihood_prefix(profile), suffix)
        conditional, unconditional = await wait_for_all([given, self._baseline(suffix)])
        if not self.config.halves:
            return float(_mean(conditional) - _mean(unconditional))
        gains = [a - b for a, b in zip(conditional, unconditional, strict=True)]
        end = len(title_line(job.fields[0]))
        head = sum(start < end for start, _ in self.engine.offsets(suffix))
        halves = (half for half in (gains[:head], gains[head:]) if half)
        return float(sum(sum(half) / math.sqrt(len(half)) for half in halves))

    async def _baseline(self, suffix: str) -> array[float]:
        """Log-probabilities of a job's tokens after the content-free profile: computed once per job and shared."""
        task = self._unconditional.get(suffix)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.ensure_future(self._without_profile(suffix))
            self._unconditional[suffix] = task
        return await asyncio.shield(task)

    async def _without_profile(self, suffix: str) -> array[float]:
        return array("d", await self.engine.continuation(CONTENT_FREE, suffix))

    async def _choice(self, profile: Text, job: Text) -> tuple[Probabilities, float]:
        """Distribution over LABELS averaged over the rotations, and the mean probability mass on the letters."""
        prompts = [self._prompt(profile, job, rotation) for rotation in range(self.config.rotations)]
        answers = await wait_for_all([self.engine.letters(prompt) for prompt in prompts])
        parts = [_letters_to_labels(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        n = len(parts)
        apply, save, click, ignore = (sum(p[i] for p, _ in parts) / n for i in range(len(LABELS)))
        return (apply, save, click, ignore), sum(mass for _, mass in parts) / n

    def _prompt(self, profile: Text, job: Text, rotation: int) -> ChatPrompt:
        return configured_prompt(self.config, profile, job, rotation)


def _letters_to_labels(prompt: ChatPrompt, answer: Mapping[str, float]) -> tuple[Probabilities, float]:
    """Distribution over LABELS from the letters' log-probabilities, and the probability mass on the letters."""
    weights = {letter: math.exp(logprob) for letter, logprob in answer.items()}
    mass = sum(weights.values())
    if not mass > 0:
        raise PairError("the model gave the letters no probability")
    p = {label: weights.get(letter, 0.0) / mass for letter, label in prompt.letters.items()}
    return (p["APPLY"], p["SAVE"], p["CLICK"], p["IGNORE"]), min(1.0, mass)
