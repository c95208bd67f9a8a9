"""Which column of a table is which field: by its own name, by a known alias, or as the user says with `--map`.

Names are compared without regard to case, spaces, underscores, hyphens and dots, so that `Job Title`, `job_title` and
`JobTitle` are one name. A field's own name comes first, then its aliases in the order given here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dynaq.errors import InputError
from dynaq.field_names import normalise
from dynaq.layout import CANDIDATE_BLOCKS, JOB_BLOCKS

RecordKind = Literal["jobs", "candidates", "events"]

FIELDS: dict[str, tuple[str, ...]] = {
    "jobs": ("id", "title", "description", "technical_skills", "soft_skills", "experience_requirements", "metadata"),
    "candidates": ("id", "bio", "hard_skills", "skills", "soft_skills", "experience"),
    "events": ("applicant_id", "job_id", "event", "at"),
}
VECTOR_FIELDS: dict[str, frozenset[str]] = {
    "jobs": frozenset(JOB_BLOCKS.values()),
    "candidates": frozenset(CANDIDATE_BLOCKS.values()),
}
LIST_FIELDS = frozenset(
    {"technical_skills", "soft_skills", "experience_requirements", "hard_skills", "skills", "experience"}
)
TEXT_FIELDS = frozenset({"title", "description", "bio"})

_ALIASES: dict[str, dict[str, str]] = {
    "jobs": {
        "id": "job_id, posting_id, vacancy_id, position_id, _id, original_job_id, jobposting_id, uniq id, uuid, uid, "
        "job ref, reference number, reference, ref, ид, айди, номер вакансии, id вакансии, идентификатор, kennziffer, "
        "referenznummer, référence, referencia",
        "title": "job_title, posting_title, position_title, vacancy_title, vacancy_name, job_name, position_name, "
        "position, vacancy, job_role, role, designation, occupation, headline, job, job_position, name, "
        "название, название вакансии, наименование, наименование вакансии, вакансия, должность, профессия, "
        "назва, посада, stellenbezeichnung, stellentitel, jobtitel, titel, bezeichnung, beruf, intitulé, "
        "intitulé du poste, titre, poste, título, titulo, puesto, cargo, título del puesto, vaga, 职位, 职位名称, 職種",
        "description": "job_description, job_desc, full_description, jobdescription, description_text, desc, "
        "vacancy_description, posting_description, details, job_details, body, text, content, summary, job_summary, "
        "about_the_job, описание, описание вакансии, текст вакансии, опис, beschreibung, stellenbeschreibung, "
        "aufgabenbeschreibung, description du poste, descriptif, descripción, descripcion, descrição, descricao, "
        "职位描述, 仕事内容",
        "technical_skills": "skills, key_skills, required_skills, hard_skills, skill, skill_set, skillset, "
        "skills_desc, job_skills, job_skill_set, tech_skills, tech_stack, technologies, tags, stack, "
        "ключевые навыки, навыки, требуемые навыки, ключові навички, fähigkeiten, kenntnisse, "
        "compétences, habilidades, competencias, competências, 技能, スキル",
        "soft_skills": "softskills, personal_skills, interpersonal_skills, личные качества, гибкие навыки, "
        "soft skills (личные)",
        "experience_requirements": "requirements, qualifications, job_requirements, required_experience, "
        "experience_required, required_qualifications, experience, experience_level, formatted_experience_level, "
        "work_experience, seniority, seniority_level, требования, требуемый опыт, опыт работы, опыт, вимоги, "
        "anforderungen, qualifikation, profil recherché, expérience, requisitos, experiencia",
    },
    "candidates": {
        "id": "candidate_id, applicant_id, person_id, resume_id, cv_id, user_id, employee_id, _id, "
        "original_candidate_id, uuid, uid, ид, id резюме, идентификатор, номер",
        "bio": "summary, profile, about, about_me, resume, resume_str, resume_text, cv, cv_text, biography, objective, "
        "career_objective, professional_summary, description, text, resume_html, о себе, обо мне, резюме, описание, "
        "profil, über mich, lebenslauf, résumé, à propos, perfil, sobre mí",
        "hard_skills": "skills, key_skills, technical_skills, skill, skill_set, skillset, tech_skills, technologies, "
        "tech_stack, competences, ключевые навыки, навыки, умения, профессиональные навыки, навички, fähigkeiten, "
        "kenntnisse, compétences, habilidades, competencias, 技能, スキル",
        "soft_skills": "softskills, personal_skills, interpersonal_skills, strengths, личные качества, гибкие навыки, "
        "stärken, qualités",
        "experience": "work_experience, positions, previous_positions, job_titles, past_positions, experiences, "
        "work_history, employment, employment_history, current_position, current_title, current_role, job_title, "
        "position, desired_position, title, role, occupation, headline, опыт работы, опыт, должность, "
        "последняя нынешняя должность, последняя/нынешняя должность, желаемая должность, "
        "ищет работу на должность, berufserfahrung, position actuelle, expérience, experiencia, puesto, 职位",
    },
    "events": {
        "applicant_id": "applicant, candidate_id, candidate, user_id, user, person_id, person, member_id, resume_id, "
        "visitor_id, bewerber_id, id соискателя",
        "job_id": "job, posting_id, vacancy_id, position_id, item_id, item, ad_id, stellen_id, id вакансии",
        "event": "event_type, type, action, interaction, interaction_type, activity, behavior, ereignis, событие",
        "at": "time, timestamp, event_time, occurred_at, created_at, date, datetime, ts, zeit, время",
    },
}
# Text that is appended to a field's main column, or makes up the field where there is no main column.
_ADDED: dict[str, dict[str, str]] = {
    "jobs": {
        "description": "responsibilities, job_responsibilities, key_responsibilities, duties, обязанности, "
        "должностные обязанности, условия, aufgaben, missions, responsabilidades",
    },
    "candidates": {
        "bio": "education, projects, certifications, certificates, languages, образование, образование и вуз, "
        "ausbildung, formation, educación, educacion",
    },
    "events": {},
}  # fmt: skip


def _table(aliases: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, tuple[str, ...]]]:
    return {
        kind: {field: tuple(dict.fromkeys(map(normalise, names.split(", ")))) for field, names in fields.items()}
        for kind, fields in aliases.items()
    }


ALIASES, ADDED = _table(_ALIASES), _table(_ADDED)


def known_names(kind: RecordKind) -> frozenset[str]:
    """All normalised names of fields of this kind of record, by which header rows are recognised."""
    names = {normalise(field) for field in FIELDS[kind]}
    for table in (ALIASES[kind], ADDED[kind]):
        names.update(*table.values())
    return frozenset(names)


@dataclass(frozen=True)
class ColumnMapping:
    """Field -> columns, as the user named them.

    Args:
        sources: field -> columns, joined in this order.
        explicit: fields named in this command, whose columns must exist; the others were remembered by the store.
    """

    sources: Mapping[str, tuple[str, ...]]
    explicit: frozenset[str] = frozenset()

    def after(self, saved: Mapping[str, Sequence[str]]) -> ColumnMapping:
        """This mapping, completed by what a store remembers about the fields that it does not name."""
        return ColumnMapping(
            {field: tuple(columns) for field, columns in saved.items()} | dict(self.sources), self.explicit
        )


NO_MAPPING = ColumnMapping({})


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns of one file make up which field.

    Args:
        sources: field -> columns that make it up, in order.
        rest: columns that belong to no field.
    """

    sources: dict[str, tuple[str, ...]]
    rest: tuple[str, ...]

    def apply(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A record keyed by field. Columns that belong to no field keep their own names."""
        used = {column for columns in self.sources.values() for column in columns}
        record = {name: value for name, value in raw.items() if name not in used}
        for field, columns in self.sources.items():
            values = [raw[column] for column in columns if raw.get(column) is not None]
            if not values:
                continue
            joined = values[0] if len(values) == 1 else "\n".join(map(_as_text, values))
            record[field] = joined
        return record

    def renamed(self) -> dict[str, tuple[str, ...]]:
        """The fields whose columns have other names."""
        return {field: columns for field, columns in self.sources.items() if columns != (field,)}


def plan_columns(
    columns: Sequence[str], kind: RecordKind, mapping: ColumnMapping = NO_MAPPING, *, where: str = ""
) -> ColumnPlan:
    """Decide what each column is.

    Args:
        columns: names as they stand in the file.
        kind: of the records.
        mapping: what the user named, which takes precedence.
        where: the file, for the message.

    Raises InputError, with the columns found and near matches, when an explicit mapping names a missing column.
    """
    free = dict.fromkeys(columns)
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(normalise(column), []).append(column)
    sources: dict[str, tuple[str, ...]] = {}

    def take(field: str, found: Sequence[str]) -> None:
        sources[field] = tuple(found)
        for column in found:
            free.pop(column, None)

    for field, wanted in mapping.sources.items():
        found = [_find(column, columns, by_name) for column in wanted]
        if field in mapping.explicit and None in found:
            raise InputError(_no_such_column(wanted[found.index(None)], field, columns, where))
        if present := [column for column in found if column is not None]:
            take(field, present)
    for field in FIELDS[kind]:
        if field in free and field not in sources:
            take(field, [field])
    for field in FIELDS[kind]:
        if field not in sources and not _has_skills(field, sources):
            for column in by_name.get(normalise(field), ()):
                if column in free:
                    take(field, [column])
                    break
    for field, aliases in ALIASES[kind].items():
        if field in sources or _has_skills(field, sources):
            continue
        match = next((c for alias in aliases for c in by_name.get(alias, ()) if c in free), None)
        if match is not None:
            take(field, [match])
    for field, aliases in ADDED[kind].items():
        if field in mapping.sources:
            continue
        more = [c for alias in aliases for c in by_name.get(alias, ()) if c in free]
        if more:
            take(field, [*sources.get(field, ()), *more])
    return ColumnPlan(sources, tuple(free))


def _has_skills(field: str, sources: Mapping[str, Any]) -> bool:
    """A candidate's `skills` and `hard_skills` are one field."""
    return field in ("skills", "hard_skills") and ("skills" in sources or "hard_skills" in sources)


def _find(wanted: str, columns: Sequence[str], by_name: Mapping[str, list[str]]) -> str | None:
    if wanted in columns:
        return wanted
    return next(iter(by_name.get(normalise(wanted), ())), None)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _no_such_column(wanted: str | None, field: str, columns: Sequence[str], where: str) -> str:
    name = str(wanted)
    lowered = {column.casefold(): column for column in columns}
    near = [lowered[match] for match in difflib.get_close_matches(name.casefold(), lowered, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return (
        f"input file {where}: there is no column {name!r} to read {field} from{hint} (columns found: {shown(columns)})"
    )


def shown(columns: Sequence[str], limit: int = 30) -> str:
    """Column names for a message, the first `limit` of them."""
    names = ", ".join(column[:60] for column in columns[:limit])
    return names + (f" and {len(columns) - limit} more" if len(columns) > limit else "")


def parse_mappings(
    options: Sequence[str], *, jobs: bool = False, candidates: bool = False, events: bool = False
) -> dict[RecordKind, ColumnMapping]:
    """Parse `title=job_title,description=text` and `candidates.bio=about` into one mapping per kind.

    Args:
        options: values of `--map`. A field that is named twice is joined from both columns.
        jobs: whether files of jobs are read.
        candidates: whether files of candidates are read.
        events: whether logs of events are read.

    Raises InputError on an unknown field, and on one that both kinds have while files of both are read.
    """
    kinds: dict[RecordKind, bool] = {"jobs": jobs, "candidates": candidates, "events": events}
    given = [kind for kind, read in kinds.items() if read]
    fields = sorted({field for kind in FIELDS for field in FIELDS[kind]})
    start = re.compile(rf"(?:^|,)\s*((?:jobs\.|candidates\.|events\.)?(?:{'|'.join(fields)}))\s*=")
    found: dict[str, dict[str, tuple[str, ...]]] = {kind: {} for kind in given}
    for option in options:
        starts = list(start.finditer(option))
        if not starts or starts[0].start() != 0:
            raise InputError(
                f"--map {option!r} is not field=column[,field=column…]; the fields of a job are "
                f"{', '.join(FIELDS['jobs'])}, those of a candidate {', '.join(FIELDS['candidates'])}, "
                f"those of an event {', '.join(FIELDS['events'])}"
            )
        for match, following in zip(starts, [*starts[1:], None], strict=True):
            column = option[match.end() : following.start() if following else None].strip()
            if not column:
                raise InputError(f"--map {option!r}: no column is named for {match[1]}")
            for kind in _kinds_of(match[1], given, option):
                field = match[1].rpartition(".")[2]
                found[kind][field] = (*found[kind].get(field, ()), column)
    return {kind: ColumnMapping(found[kind], frozenset(found[kind])) for kind in given if found[kind]}


def _kinds_of(name: str, given: Sequence[RecordKind], option: str) -> list[RecordKind]:
    prefix, _, field = name.rpartition(".")
    kinds = [kind for kind in given if field in FIELDS[kind] and prefix in ("", kind)]
    if not kinds:
        raise InputError(f"--map {option!r}: no file is given that {name!r} would be a field of")
    if len(kinds) > 1:
        raise InputError(
            f"--map {option!r}: jobs and candidates both have {field!r}; write jobs.{field} or candidates.{field}"
        )
    return kinds
