"""What goes over the wire."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag

from dynaq.feedback.events import MAX_PREFERENCE, MAX_TEXT, Event, FeedbackEvent

Id = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Preference = Annotated[str, Field(max_length=MAX_PREFERENCE)]


class Explanation(BaseModel):
    """Why a job is where it is.

    q: the agent's value of the job; null without an agent. judge: how the newest judgement of the pair has it, when
    there is one. preference: cosine of the wish with the job's description.
    """

    cosine: float
    q: float | None
    q_is_estimated: bool = Field(description="the job came after training; its Q is that of the most similar jobs")
    judge: dict[str, float] | None = Field(description="p of apply, save, click, ignore")
    preference: float | None
    shared_skills: list[str]


class Recommendation(BaseModel):
    """One place of a list."""

    rank: int
    job_id: str
    title: str
    summary: str = Field(description="the beginning of the description")
    marked: Literal["save", "click"] | None = Field(description="what the applicant did with it before")
    explanation: Explanation | None


class Recommendations(BaseModel):
    """A list for one applicant. Jobs they applied to, were hired for or declined are left out; saved ones stay."""

    applicant_id: str
    source: Literal["agent", "warm-start"]
    note: str
    run_id: str | None
    preference: str | None
    exposure: str = Field(description="key under which it is kept that this list was shown")
    recommendations: list[Recommendation]


class FeedbackIn(BaseModel):
    """One thing that one person did with one job."""

    model_config = ConfigDict(extra="forbid")

    applicant_id: Id
    job_id: Id
    event: Event
    at: AwareDatetime | None = Field(default=None, description="now when absent")
    source: str = Field(default="", max_length=MAX_TEXT)

    def record(self, now: datetime, key: str | None) -> FeedbackEvent:
        """Raises InputError for a time that is none.

        An event sent again is known by its content together with the caller's key, or with its own time; one with
        neither is always new.
        """
        if key is None and self.at is None:
            name = uuid.uuid4().hex
        else:
            at = "" if self.at is None else self.at.astimezone(UTC).isoformat()
            parts = (key or "", self.applicant_id, self.job_id, self.event, at, "" if key else self.source)
            name = hashlib.blake2b("".join(f"{len(p)}:{p}" for p in parts).encode(), digest_size=16).hexdigest()
        return FeedbackEvent(self.applicant_id, self.job_id, self.event, self.at or now, self.source, name)


class FeedbackBatch(BaseModel):
    """Several; all are kept or none."""

    model_config = ConfigDict(extra="forbid")

    events: list[FeedbackIn] = Field(min_length=1, max_length=10_000)


def _form(body: Any) -> str:
    batch = "events" in body if isinstance(body, dict) else isinstance(body, FeedbackBatch)
    return "batch" if batch else "single"


FeedbackBody = Annotated[
    Annotated[FeedbackIn, Tag("single")] | Annotated[FeedbackBatch, Tag("batch")], Discriminator(_form)
]


class FeedbackAccepted(BaseModel):
    """The events are on the disk, those that were sent before included. keys: under which they are kept, in order."""

    accepted: int
    keys: list[str]


class Position(BaseModel):
    """A job that the applicant had."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=1000)
    company: str = Field(default="", max_length=1000)


Skill = Annotated[str, Field(max_length=1000)]


class ApplicantIn(BaseModel):
    """A profile. At least one of bio, skills and experience says something."""

    model_config = ConfigDict(extra="forbid")

    id: Id | None = Field(default=None, description="made up when absent")
    bio: str = Field(default="", max_length=20_000)
    hard_skills: list[Skill] = Field(default=[], max_length=500)
    soft_skills: list[Skill] = Field(default=[], max_length=500)
    experience: list[Position] = Field(default=[], max_length=200)


class ApplicantCreated(BaseModel):
    """The new applicant's id, and where the recommendations are."""

    id: str
    recommendations: str = Field(description="where they are")


class ApplicantShown(BaseModel):
    """An applicant as a list of applicants shows them."""

    id: str
    headline: str
    has_agent: bool


class ApplicantList(BaseModel):
    """A page of applicants by id; `next` is the `after` of the next page, null on the last."""

    applicants: list[ApplicantShown]
    next: str | None


class Status(BaseModel):
    """run_id: whose agents rank. problem: why a newer run, or the store's newest state, is not used."""

    status: Literal["ok", "ready"]
    run_id: str | None = None
    catalogue: str | None = None
    jobs: int | None = None
    problem: str | None = None
    process: int | None = None
