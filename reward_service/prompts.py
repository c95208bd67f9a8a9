"""What a judge reads about one applicant and one job: neutralised fields, cut to a token limit.

Shared parts come first, so that the engine's prefix cache can serve them: the instruction, then the longer of profile
and job, then the other, then the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynaq.judging.history import Did, History
from dynaq.judging.judgement import LABELS, Label
from dynaq.records import Candidate, Job
from reward_service.condensing import condensed
from reward_service.untrusted_text import Field, Offsets, fit, neutralise

if TYPE_CHECKING:
    from reward_service.config import JudgeConfig

MEANINGS: dict[Label, str] = {
    "APPLY": "apply for it",
    "SAVE": "save it for later",
    "CLICK": "open it to read more, no further",
    "IGNORE": "pass it by",
}
DONE: dict[Did, str] = {
    "hire": "Hired for",
    "apply": "Applied for",
    "save": "Saved",
    "click": "Looked at",
    "ignore": "Not for me",
}
HISTORY_HEAD = "What you did with other postings, newest first:\n"
LETTERS = ("A", "B", "C", "D")

# An empty profile, with which `likelihood` compares so that the general frequency of a job's words cancels out.
CONTENT_FREE = "N/A\nSkills: N/A\nPast jobs: N/A\nNext job:"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt; markers of the chat template have no effect in an untrusted one."""

    text: str
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    """Fields of one applicant or job, ready for a prompt; whether they were shortened, and if by condensing.

    history: of an applicant whose judge has memory, what they did before.
    """

    fields: tuple[Field, ...]
    was_cut: bool
    was_condensed: bool = False
    history: Text | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no text to judge."""
        return not self.fields


def profile_text(applicant: Candidate, limit: int, offsets: Offsets) -> Text:
    """Bio, skills and past jobs of an applicant, in at most `limit` tokens."""
    skills = [neutralise(skill) for skill in (*applicant.hard_skills, *applicant.soft_skills)]
    jobs = [
        neutralise(f"{past.title} at {past.company}" if past.company else past.title) for past in applicant.experience
    ]
    return _text(
        [
            Field("Bio", neutralise(applicant.bio)),
            Field("Skills", ", ".join(filter(None, skills))),
            Field("Past jobs", "; ".join(filter(None, jobs))),
        ],
        limit,
        offsets,
    )


def history_text(history: History, limit: int, offsets: Offsets) -> Text:
    """What an applicant did before, an event per field, newest first; the titles have at most `limit` tokens."""
    return _text([Field(f"{DONE[one.event]} ({one.ago})", neutralise(one.title)) for one in history], limit, offsets)


def job_text(job: Job, limit: int, offsets: Offsets, *, description: bool = True, condense: bool = False) -> Text:
    """Title and skills of a job, with `description` also experience and description, in at most `limit` tokens.

    A job without skills always includes its description, as its title alone says too little. With `condense`, prose
    that does not fit is condensed to what counts; a job that fits has the same text with it and without.
    """
    skills = [neutralise(skill) for skill in (*job.technical_skills, *job.soft_skills)]
    experience = "; ".join(filter(None, map(neutralise, job.experience_requirements)))
    fields = [Field("Title", neutralise(job.title)), Field("Skills required", ", ".join(filter(None, skills)))]
    if description:
        fields.append(Field("Experience required", experience))
    if description or not skills:
        fields.append(Field("Description", neutralise(job.description)))
    text = _text(fields, limit, offsets)
    if not (condense and text.was_cut and fields[-1].label == "Description"):
        return text
    fields.pop()
    if description:
        room = limit - sum(len(offsets(field.text)) for field in fields)
        fields.append(Field("Description", condensed(job.description, max(room, limit // 4), offsets)))
    else:  # for `likelihood`, which compares lists of skills
        prose = "\n".join((*job.experience_requirements, job.description))
        room = limit - min(len(offsets(fields[0].text)), limit // 2)
        fields[1:] = [Field("Skills required", condensed(prose, room, offsets, bare=True))]
    return Text(_text(fields, limit, offsets).fields, was_cut=True, was_condensed=True)


def _text(fields: Sequence[Field], limit: int, offsets: Offsets) -> Text:
    fitted, was_cut = fit([field for field in fields if field.text], limit, offsets)
    return Text(tuple(fitted), was_cut)


def likelihood_prefix(profile: Text) -> str:
    """The applicant's side of the `likelihood` prompt; the job's text follows it."""
    values = {field.label: field.text for field in profile.fields}
    bio, skills, jobs = (values.get(label, "N/A") for label in ("Bio", "Skills", "Past jobs"))
    told = "".join(f"{field.label}: {field.text}\n" for field in profile.history.fields) if profile.history else ""
    return f"{bio}\nSkills: {skills}\nPast jobs: {jobs}\n{told}Next job:"


def likelihood_suffix(job: Text) -> str:
    """The job's side of the `likelihood` prompt, whose log-probability is measured."""
    title, *rest = job.fields
    return title_line(title) + "".join(f"{field.label}: {field.text}\n" for field in rest)


def title_line(title: Field) -> str:
    """The head of a `likelihood_suffix`."""
    return f" {title.text}\n"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """One `choice` question: system prompt, user turn in segments, and the label that each letter stands for."""

    system: str
    user: tuple[Segment, ...]
    letters: dict[str, Label]


def choice_prompt(
    profile: Text, job: Text, *, instruction: str, question: str, applicant_first: bool, rotation: int
) -> ChatPrompt:
    """The `choice` question; `rotation` shifts the labels against the letters."""
    applicant = _section("profile", profile)
    if profile.history:
        applicant += (Segment(HISTORY_HEAD), *_section("history", profile.history))
    parts = [applicant, _section("posting", job)]
    first, second = parts if applicant_first else reversed(parts)
    order = LABELS[rotation:] + LABELS[:rotation]
    letters = dict(zip(LETTERS, order, strict=True))
    options = "\n".join(f"{letter}) {label}: {MEANINGS[label]}" for letter, label in letters.items())
    return ChatPrompt(instruction, (*first, *second, Segment(f"{options}\n{question}")), letters)


def configured_prompt(config: JudgeConfig, profile: Text, job: Text, rotation: int = 0) -> ChatPrompt:
    """The `choice` question as a judge's configuration words it."""
    return choice_prompt(
        profile,
        job,
        instruction=config.instruction,
        question=config.question,
        applicant_first=config.applicant_first,
        rotation=rotation,
    )


def _section(name: str, text: Text) -> tuple[Segment, ...]:
    """Delimited fields, one per line. The delimiters cannot occur inside, because `neutralise` replaces every `<`."""
    segments = [Segment(f"<{name}>\n")]
    for field in text.fields:
        segments += [Segment(f"{field.label}: "), Segment(field.text, trusted=False), Segment("\n")]
    return (*segments, Segment(f"</{name}>\n"))
