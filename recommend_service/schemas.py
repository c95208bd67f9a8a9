"""Requests and responses of the API."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag

from dynaq.feedback.events import MAX_PREFERENCE, MAX_TEXT, Action, Event, FeedbackEvent

MAX_MINUTES = 60 * 24 * 30  # of a token

By = Literal["model", "judge", "person"]
Id = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Preference = Annotated[str, Field(max_length=MAX_PREFERENCE)]


class Explanation(BaseModel):
    """Why a job is at its place in the list.

    cosine: similarity of profile and job. q: the agent's value of the job; null without an agent. judge: the newest
    judgement of the pair, null if there is none. preference: cosine of the preference with the job's description.
    """

    cosine: float
    q: float | None
    q_is_estimated: bool = Field(description="the job was added after training; its Q is estimated from similar jobs")
    judge: dict[str, float] | None = Field(description="probabilities of apply, save, click, ignore")
    preference: float | None
    shared_skills: list[str]
    reasons: list[str] = Field(description="the same in plain words, the strongest first")


class Part(BaseModel):
    """A part of a list, and who it comes from: a trained model, a judge (an LLM that plays the applicant), a person."""

    by: By
    what: Literal["order", "selection"]
    how: str


class Recommendation(BaseModel):
    """One place of a list."""

    rank: int
    placed_by: Literal["model", "person"] = Field(description="person: an operator pinned the job")
    exploring: bool = Field(description="the job ranks lower, and is listed so that the agent learns about it")
    job_id: str
    title: str
    summary: str = Field(description="the beginning of the description")
    facets: dict[str, str] = Field(description="place, contract and language, where the job names them")
    marked: Literal["save", "click"] | None = Field(description="the applicant's earlier event on the job")
    explanation: Explanation | None


class Recommendations(BaseModel):
    """A list for one applicant. Jobs they applied to, were hired for or declined are left out; saved ones are kept."""

    applicant_id: str
    source: Literal["agent", "warm-start"]
    note: str
    run_id: str | None
    preference: str | None
    exposure: str | None = Field(
        description="key of the stored exposure, the record that this list was shown; null for a caller who only reads"
    )
    parts: list[Part]
    recommendations: list[Recommendation]


class FeedbackIn(BaseModel):
    """One action of one applicant on one job."""

    model_config = ConfigDict(extra="forbid")

    applicant_id: Id
    job_id: Id
    event: Event
    at: AwareDatetime | None = Field(default=None, description="time of the event; now if absent")
    source: str = Field(default="", max_length=MAX_TEXT)

    def record(self, now: datetime, key: str | None) -> FeedbackEvent:
        """The event to store. key: the caller's idempotency key. Raises InputError for an invalid time.

        An event sent again is recognised by its content together with the caller's key, or else with its own time;
        without either it is always new.
        """
        if key is None and self.at is None:
            name = uuid.uuid4().hex
        else:
            at = "" if self.at is None else self.at.astimezone(UTC).isoformat()
            parts = (key or "", self.applicant_id, self.job_id, self.event, at, "" if key else self.source)
            name = hashlib.blake2b("".join(f"{len(p)}:{p}" for p in parts).encode(), digest_size=16).hexdigest()
        return FeedbackEvent(self.applicant_id, self.job_id, self.event, self.at or now, self.source, name)


class FeedbackBatch(BaseModel):
    """Several events, of which either all are stored or none."""

    model_config = ConfigDict(extra="forbid")

    events: list[FeedbackIn] = Field(min_length=1, max_length=10_000)


def _form(body: Any) -> str:
    batch = "events" in body if isinstance(body, dict) else isinstance(body, FeedbackBatch)
    return "batch" if batch else "single"


FeedbackBody = Annotated[
    Annotated[FeedbackIn, Tag("single")] | Annotated[FeedbackBatch, Tag("batch")], Discriminator(_form)
]


class FeedbackAccepted(BaseModel):
    """The events are on disk. accepted: their number, including those sent before. keys: their keys, in order."""

    accepted: int
    keys: list[str]


class Position(BaseModel):
    """A past position of the applicant."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=1000)
    company: str = Field(default="", max_length=1000)


Skill = Annotated[str, Field(max_length=1000)]


class ProfileIn(BaseModel):
    """A profile. At least one of bio, skills and experience must have text."""

    model_config = ConfigDict(extra="forbid")

    bio: str = Field(default="", max_length=20_000)
    hard_skills: list[Skill] = Field(default=[], max_length=500)
    soft_skills: list[Skill] = Field(default=[], max_length=500)
    experience: list[Position] = Field(default=[], max_length=200)


class ApplicantIn(ProfileIn):
    """A new applicant's profile. At least one of bio, skills and experience must have text."""

    id: Id | None = Field(default=None, description="generated if absent")


class ApplicantCreated(BaseModel):
    """The new applicant."""

    id: str
    recommendations: str = Field(description="path of the applicant's recommendations")


class ApplicantShown(BaseModel):
    """An applicant's entry in the list of applicants."""

    id: str
    headline: str
    has_agent: bool


class ApplicantList(BaseModel):
    """A page of applicants ordered by id; `next` is the `after` of the next page, null on the last."""

    applicants: list[ApplicantShown]
    next: str | None


class Status(BaseModel):
    """Status of the service. run_id: the run whose agents rank. problem: why a newer run or catalogue is not used."""

    status: Literal["ok", "ready"]
    run_id: str | None = None
    catalogue: str | None = None
    jobs: int | None = None
    problem: str | None = None
    process: int | None = None


class Me(BaseModel):
    """Whose key or token a caller has."""

    scope: Literal["service", "reader", "applicant"]
    applicant_id: str | None
    read_only: bool


class TokenIn(BaseModel):
    """What kind of token."""

    model_config = ConfigDict(extra="forbid")

    minutes: int = Field(default=60, ge=1, le=MAX_MINUTES, description="until it expires")
    read_only: bool = False


class TokenIssued(BaseModel):
    """A token for one applicant; send it as `Authorization: Bearer TOKEN`, or open the page with `#token=TOKEN`."""

    token: str
    expires_at: datetime


class DecisionIn(BaseModel):
    """What an operator decides about one job for one applicant."""

    model_config = ConfigDict(extra="forbid")

    job_id: Id
    action: Action
    operator: Id = Field(description="who decides, for the log")
    reason: str = Field(default="", max_length=MAX_TEXT)


class DecisionShown(DecisionIn):
    """A logged decision."""

    applicant_id: str
    at: datetime
    key: str


class DecisionList(BaseModel):
    """The log of decisions for one applicant."""

    decisions: list[DecisionShown]


class Erasure(BaseModel):
    """What was erased. rows: per table of the store. runs: run folders. remaining: what is left to the operator."""

    rows: dict[str, int]
    runs: list[str]
    remaining: str
