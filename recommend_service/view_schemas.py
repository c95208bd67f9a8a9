"""Requests and responses of the calls behind the pages: profiles, documents, history, changes, runs side by side."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from dynaq.feedback.events import Event
from recommend_service.schemas import Id, Position, ProfileIn


class ProfileShown(ProfileIn):
    """What is known about an applicant.

    answers: jobs about which they have said something. judged: jobs about which a judge (an LLM that plays the
    applicant) answered in their place. has_agent: whether an agent of theirs ranks the jobs.
    """

    id: Id
    has_agent: bool
    answers: int
    judged: int


class DocumentRead(BaseModel):
    """The fields of a profile as they were found in a document. Nothing was stored.

    notes: what to know about the reading, e.g. that a document was cut. removed: kinds of personal data that were left
    out.
    """

    bio: str
    hard_skills: list[str]
    soft_skills: list[str]
    experience: list[Position]
    notes: list[str]
    removed: list[str]


class JobNamed(BaseModel):
    """A job of a list. title: null for a job that has left the catalogue."""

    job_id: str
    title: str | None


class Answer(JobNamed):
    """What an applicant's events on one job come to, and since when."""

    event: Event
    at: datetime


class AnswerList(BaseModel):
    """What an applicant has said, one answer per job, newest first. events: number of events behind them."""

    answers: list[Answer]
    events: int


class ExposureShown(BaseModel):
    """A list that an applicant was shown. policy: the run that ranked it, `warm-start`, `overseen` or `remembered`."""

    key: str
    at: datetime
    policy: str
    preference: str | None
    jobs: list[JobNamed]


class ExposureList(BaseModel):
    """The newest lists that an applicant was shown, newest first. total: number of all that are kept."""

    exposures: list[ExposureShown]
    total: int


class Left(JobNamed):
    """A job that is no longer on the list."""

    why: Literal["answered", "withdrawn", "operator", "ranked-lower"]


class ListChanges(BaseModel):
    """How the list of today differs from the last one that was shown on an earlier day.

    since: when that one was shown; null if there is none. new_run: whether another run ranks now.
    """

    since: datetime | None
    new_run: bool
    entered: list[JobNamed]
    left: list[Left]


class FacetValue(BaseModel):
    """A value of a filter, and how many jobs have it."""

    value: str
    jobs: int


class Filters(BaseModel):
    """By what lists can be filtered; empty where the data do not say."""

    place: list[FacetValue]
    contract: list[FacetValue]
    language: list[FacetValue]


class RunShown(BaseModel):
    """A run whose lists can be looked at. run_id: `similarity` is the ranking without an agent."""

    run_id: str
    name: str
    strategy: str | None
    judge: str | None
    started: str | None
    serves: bool


class RunList(BaseModel):
    """The run that serves, those before it, and the trials of the same comparison."""

    runs: list[RunShown]


class Placed(JobNamed):
    """A place of a run's list. score: Q, or the cosine. other_rank: the job's rank on the other list, null if none."""

    rank: int
    score: float
    other_rank: int | None


class RunsList(BaseModel):
    """An applicant's list by one run. has_agent: false where similarity ranks, since the run has no agent for them."""

    run_id: str
    has_agent: bool
    jobs: list[Placed]


class Comparison(BaseModel):
    """An applicant's lists by two runs. shared: number of jobs that are on both."""

    left: RunsList
    right: RunsList
    shared: int


class LearningPoint(BaseModel):
    """One round of an agent. reward: as the strategy counts it. judge_reward: the judge's own, null if there is none.

    judgements: distinct jobs judged so far. trust: how far the agent's block believes the judge. ndcg: of the ranking
    against relevance, null where none is known.
    """

    round: int
    judgements: int
    reward: float | None
    judge_reward: float | None
    trust: float | None
    ndcg: float | None
    applied: int
    saved: int
    clicked: int
    ignored: int


class LearningCurve(BaseModel):
    """How an applicant's agent learned in a run; without points if the run has no agent for them."""

    run_id: str | None
    points: list[LearningPoint]
