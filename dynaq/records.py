"""Jobs and candidates as text records: the form in which users supply them and judges read them.

Ids are strings inside the library. A store keeps the id type of its database (ObjectId, string, integer) and hands out
`str(_id)`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_list(value: Any) -> Any:
    """Splits `;`-separated text; None becomes an empty list."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(";") if part.strip())
    return value


def _as_experience(value: Any) -> Any:
    """Accepts titles, as a list or `;`-separated, in place of full entries."""
    items = _as_list(value)
    if isinstance(items, (list, tuple)):
        return tuple({"title": item} if isinstance(item, str) else item for item in items)
    return items


TextList = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class Job(BaseModel):
    """One posting of the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    title: str = Field(min_length=1)
    description: str = ""
    technical_skills: TextList = ()
    soft_skills: TextList = ()
    experience_requirements: TextList = ()
    metadata: dict[str, Any] = Field(default_factory=dict)


class Experience(BaseModel):
    """One past position. Further fields (dates, place) are kept unchanged."""

    model_config = ConfigDict(frozen=True, extra="allow")

    title: str
    company: str = ""


class Candidate(BaseModel):
    """One applicant of the cohort, as the input files describe them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    bio: str = ""
    hard_skills: TextList = ()
    soft_skills: TextList = ()
    experience: Annotated[tuple[Experience, ...], BeforeValidator(_as_experience)] = ()
