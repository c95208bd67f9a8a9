"""What a judge is: the protocols, the record it returns, that record's table columns, and the reward of each label.

Judges that call a model live in `reward_service`; the one that replays a ledger lives in `dynaq.judging.ledger_file`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa

from dynaq.errors import InputError, JudgeError
from dynaq.judging.history import History
from dynaq.records import Candidate, Job

Label = Literal["APPLY", "SAVE", "CLICK", "IGNORE"]
LABELS: tuple[Label, ...] = get_args(Label)
LABEL_VALUES: Mapping[Label, float] = {"APPLY": 1.0, "SAVE": 0.5, "CLICK": 0.0, "IGNORE": -0.1}

JUDGEMENT_SCHEMA = pa.schema(
    [
        ("applicant_id", pa.string()),
        ("job_id", pa.string()),
        ("p_apply", pa.float64()),
        ("p_save", pa.float64()),
        ("p_click", pa.float64()),
        ("p_ignore", pa.float64()),
        ("label", pa.string()),
        ("reward", pa.float64()),
        ("label_mass", pa.float64()),
        ("judge", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judge's answer on one (applicant, job) pair.

    Args:
        applicant_id: the applicant whose answer the judge simulates.
        job_id: the job that was shown.
        p_apply, p_save, p_click, p_ignore: distribution over the four labels, summing to 1.
        label: the likeliest label, or the drawn one in `sampled` mode; None when the judge abstained.
        reward: expected value of the distribution (the drawn label's value in `sampled` mode); None when abstained.
        label_mass: probability that the model gave to the four labels before normalising, in [0, 1].
        judge: the judge's fingerprint; with what it was told, if that was more than the pair (`dynaq.judging.history`).
        created_at: time of the judgement, UTC.
        note: a remark for readers, e.g. that a long text was cut or why the judge abstained.
    """

    applicant_id: str
    job_id: str
    p_apply: float
    p_save: float
    p_click: float
    p_ignore: float
    label: Label | None
    reward: float | None
    label_mass: float
    judge: str
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    note: str = ""

    def __post_init__(self) -> None:
        if self.label is None:
            return
        pair = f"judgement of {self.applicant_id!r} on {self.job_id!r}"
        if self.label not in LABELS:
            raise InputError(f"{pair}: label {self.label!r} is not one of {', '.join(LABELS)}")
        p = self.probabilities
        if not (all(0.0 <= x <= 1.0 for x in p) and math.isclose(sum(p), 1.0, abs_tol=1e-3)):
            raise InputError(f"{pair}: probabilities {p} must lie in [0, 1] and sum to 1")
        if self.reward is None or not math.isfinite(self.reward):
            raise InputError(f"{pair}: reward {self.reward!r} is not a finite number")

    @property
    def probabilities(self) -> tuple[float, float, float, float]:
        """In the order of `LABELS`."""
        return (self.p_apply, self.p_save, self.p_click, self.p_ignore)

    @property
    def abstained(self) -> bool:
        """Whether the judge abstained; such a pair is left out of learning and may be asked about again."""
        return self.label is None


def judgement_row(judgement: Judgement) -> dict[str, Any]:
    """The judgement as a row with the columns of `JUDGEMENT_SCHEMA`."""
    return {name: getattr(judgement, name) for name in JUDGEMENT_SCHEMA.names}


def expected_reward(probabilities: Sequence[float], values: Mapping[Label, float] = LABEL_VALUES) -> float:
    """Sum over labels of p·value: the same call gives a reward of less variance than the likeliest label's value."""
    return float(sum(p * values[label] for p, label in zip(probabilities, LABELS, strict=True)))


def judgement_from_probabilities(
    applicant_id: str,
    job_id: str,
    probabilities: Sequence[float],
    *,
    judge: str,
    label_mass: float = 1.0,
    values: Mapping[Label, float] = LABEL_VALUES,
    note: str = "",
) -> Judgement:
    """Build a Judgement from a distribution over LABELS (normalised here). Raises InputError on a bad distribution."""
    total = float(sum(probabilities))
    if len(probabilities) != 4 or not math.isfinite(total) or total <= 0 or min(probabilities) < 0:
        pair = f"judgement of {applicant_id!r} on {job_id!r}"
        raise InputError(f"{pair}: {tuple(probabilities)} is not a distribution over {', '.join(LABELS)}")
    apply, save, click, ignore = (float(x) / total for x in probabilities)
    p = (apply, save, click, ignore)
    return Judgement(
        applicant_id,
        job_id,
        p_apply=apply,
        p_save=save,
        p_click=click,
        p_ignore=ignore,
        label=LABELS[max(range(4), key=p.__getitem__)],
        reward=expected_reward(p, values),
        label_mass=label_mass,
        judge=judge,
        note=note,
    )


def abstention(applicant_id: str, job_id: str, *, judge: str, note: str) -> Judgement:
    """A judgement without a reward, for a pair that the judge could not answer."""
    nan = math.nan
    return Judgement(
        applicant_id, job_id, nan, nan, nan, nan, label=None, reward=None, label_mass=0.0, judge=judge, note=note
    )


def fingerprint(method: str, **parts: Any) -> str:
    """A judge's key in the ledger: `method-` and 12 hex digits of the SHA-256 of its canonical JSON description."""
    text = json.dumps({"method": method, **parts}, sort_keys=True, default=str)
    return f"{method}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class UnfinishedJudgements(JudgeError):
    """A judge that is paid per call failed after it had answered some pairs, whose judgements are in `answers`."""

    def __init__(self, message: str, answers: Sequence[Judgement]) -> None:
        super().__init__(message, answers)
        self.answers = tuple(answers)

    def __str__(self) -> str:
        return str(self.args[0])


def check_answers(
    answers: Sequence[Judgement], applicant_id: str, job_ids: Sequence[str], who: str = "the judge"
) -> None:
    """Check that there is one judgement per job, in the order asked. Raises JudgeError otherwise.

    who: names the judge in the message.
    """
    if [answer.job_id for answer in answers] != list(job_ids):
        raise JudgeError(f"{who} answered other jobs than asked for applicant {applicant_id!r}")


class Judge(Protocol):
    """Judges one applicant on a batch of jobs. One with memory also reads the history that comes with the applicant.

    Raises JudgeError when it cannot answer at all. A single pair that it cannot answer comes back as an abstention.
    """

    @property
    def fingerprint(self) -> str:
        """The judge's key in the ledger: it changes with the model, prompt version, method and label values."""
        ...

    def judge(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in order; an abstention where a pair cannot be answered. Raises JudgeError."""
        ...


class AsyncJudge(Protocol):
    """`Judge` for callers with an event loop: many calls may be in flight at once."""

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """One judgement per job, in the order of `jobs`. Raises as `Judge`."""
        ...


@dataclass(frozen=True, slots=True)
class Slate:
    """Jobs proposed to one applicant in one round, by id.

    history: what the judge is told that the applicant did before; empty for a judge without memory.
    """

    applicant_id: str
    job_ids: tuple[str, ...]
    history: History = ()


class JudgementSource(Protocol):
    """Where a trainer gets judgements by id: one call carries the slates of a whole block of agents.

    Implementations ask the ledger first, then the judge for the missing pairs (`LedgerJudge` in one process,
    `cluster.broker.BrokerClient` in a cluster).
    """

    def fetch(self, slates: Sequence[Slate]) -> list[list[Judgement]]:
        """One judgement per job of each slate, in order. Raises JudgeError when the judge fails."""
        ...
