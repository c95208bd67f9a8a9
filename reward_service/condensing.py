"""What counts in the prose of a long posting: what it asks of people, rather than whatever fits from its beginning.

Postings begin with the company and end with benefits and legal notices; requirements are in between. Parts are ranked
by the heading above them and by their words, in the languages in which most postings are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from dynaq.personal.resume_words import heading_key
from reward_service.untrusted_text import Offsets, cut, neutralise

READ_CHARS = 20_000  # of a posting; longer than any real one
MOST_PARTS = 400

# Ranks, best first.
REQUIREMENT, DUTY, OTHER, BOILERPLATE = range(4)

_HEADINGS_BY_RANK: dict[int, str] = {
    REQUIREMENT: "requirements, job requirements, qualifications, minimum qualifications, preferred qualifications, "
    "required qualifications, basic qualifications, skills, required skills, key skills, skills and experience, "
    "experience, required experience, knowledge, you bring, what you bring, what you will bring, your profile, "
    "who you are, must have, must haves, nice to have, what we are looking for, what we re looking for, about you, "
    "требования, наши требования, основные требования, требования к кандидату, мы ожидаем, что мы ждем, "
    "наши ожидания, от вас, ключевые навыки, навыки, будет плюсом, будет преимуществом, необходимые навыки, "
    "anforderungen, ihr profil, dein profil, das bringen sie mit, das bringst du mit, kenntnisse, qualifikationen, "
    "profil, profil recherché, votre profil, compétences, requisitos, perfil, habilidades, conocimientos, "
    "qualificações, вимоги",
    DUTY: "responsibilities, key responsibilities, duties, job duties, tasks, your tasks, the role, role, "
    "what you will do, what you ll do, your role, job description, description, обязанности, "
    "должностные обязанности, задачи, чем предстоит заниматься, что нужно делать, aufgaben, ihre aufgaben, "
    "deine aufgaben, missions, vos missions, responsabilidades, funciones, обов язки",
    BOILERPLATE: "about us, about the company, who we are, our company, company description, company overview, "
    "benefits, perks, what we offer, we offer, compensation, salary, how to apply, equal opportunity, disclaimer, "
    "contact, location, why join us, our values, о компании, о нас, мы предлагаем, условия, условия работы, "
    "мы гарантируем, контакты, как откликнуться, über uns, wir bieten, das bieten wir, unser angebot, benefits, "
    "kontakt, à propos, qui sommes nous, nous offrons, avantages, sobre nosotros, ofrecemos, beneficios, "
    "sobre nós, oferecemos, ми пропонуємо",
}
HEADING_RANKS = {heading_key(name): rank for rank, names in _HEADINGS_BY_RANK.items() for name in names.split(", ")}

_BOILERPLATE = re.compile(
    r"equal opportunity|equal employment|regardless of|without regard to|\bveterans?\b|reasonable accommodation|"
    r"\b401\s?\(?k\b|dental|health insurance|paid (?:time off|leave|vacation)|\bPTO\b|"
    r"apply (?:now|today|here|online)|send (?:us )?your (?:cv|resume|résumé)|we offer|competitive salary|privacy|"
    r"our (?:company|clients|mission|values)|about us|is looking for|https?:|www\.|\bбенефит|\bДМС\b|"
    r"трудоустройство по ТК|официальн\w+ трудоустройств|"
    r"мы предлагаем|график работы|заработн|wir bieten|bewerbung|nous offrons|ofrecemos|oferecemos",
    re.IGNORECASE,
)
_CUES = re.compile(
    r"\b(?:experience|experienced|knowledge|skills?|skilled|proficien\w+|familiar\w*|expertise|degree|"
    r"certifi\w+|licen[cs]e|ability to|able to|must (?:have|be)|required?|requirements?|years|fluent|"
    r"you (?:bring|know|have)|understanding of|опыт\w*|знани\w*|умени\w*|навык\w*|владени\w*|образовани\w*|понимани\w*|"
    r"требу\w+|erfahrung\w*|kenntniss\w*|ausbildung|studium|expérience|connaissances?|maîtrise|diplôme|"
    r"experiencia|conocimientos?|dominio|titulaci\w+|experiência|conhecimentos?|досвід\w*|знання)\b",
    re.IGNORECASE,
)
# How a requirement begins, before it comes to what is required. Left out, so that the few tokens go to the latter.
_LEAD = re.compile(
    r"^(?:(?:ideal candidate (?:has|is)|you (?:bring|know|have|are|will (?:have|need))|we (?:expect|require)|"
    r"candidates? (?:must|should) have|"
    r"must (?:have|be)|required?|requirements?|qualifications?|minimum|at least|strong|solid|good|excellent|proven|"
    r"demonstrated|deep|basic|working|practical|hands-on|relevant|professional|prior|previous|the|an?|and|of|with|in|"
    r"using|(?:\d+\s?\+?|two|three|five)(?:\s?[-–to]+\s?\d+)?\+?\s?(?:years?|yrs?)['’]?|experience|knowledge|"
    r"understanding|proficien(?:cy|t)|familiar(?:ity)?|expertise|command|ability to|able to|skills?|"
    r"опыт|знание|знания|умение|навыки|владение|понимание|работы|уверенное|хорошее|отличное|от|с|"
    r"(?:\d+\s?\+?)\s?(?:лет|года?)|sehr|gute|erste|fundierte|erfahrungen?|kenntnisse|mit|im|in der)\b[\s:,–-]*)+",
    re.IGNORECASE,
)
_BREAKS = re.compile(r"[\r\n\u2028\u2029]+|\s*[•·▪●◦►■]\s*|(?<=[^\s.]{2}[.!?;])\s+|(?<=:)\s*(?=[-–—]\s)")
_BULLET = re.compile(r"^[\s\-–—*•·]+")


def condensed(text: str, limit: int, offsets: Offsets, *, bare: bool = False) -> str:
    """At most `limit` tokens of a posting's prose: its requirements, then its duties, then the rest, in its own order.

    bare: without the words by which requirements begin ("5 years of experience with"), as a list of skills is written.
    The result is neutralised, as everything in a prompt is, and holds only words of the text. Company, benefits and
    notices are used only if there is nothing else.
    """
    ranked = sorted(enumerate(_parts(text[:READ_CHARS])), key=lambda part: (part[1][0], part[0]))
    if ranked and ranked[0][1][0] < BOILERPLATE:
        ranked = [part for part in ranked if part[1][0] < BOILERPLATE]
    kept: dict[int, str] = {}
    seen: set[str] = set()
    left = limit
    for place, (_, part) in ranked:
        line = _LEAD.sub("", part) if bare else part
        line = line.rstrip(" .;,:")
        if not line or line.casefold() in seen:
            continue
        seen.add(line.casefold())
        short, was_cut = cut(line, left, offsets)
        line = "" if was_cut and kept and 2 * len(short) < len(line) else short  # no stub behind whole parts
        if line:
            kept[place] = line
            left -= len(offsets(line)) + 1  # the separator
        if was_cut or left <= 1:
            break
    return "; ".join(kept[place] for place in sorted(kept))


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """(rank, neutralised sentence, line or item) in the order of the text, without its headings."""
    above: int | None = None
    for piece in islice(_BREAKS.split(text), MOST_PARTS):
        part = neutralise(_BULLET.sub("", piece))
        head, colon, rest = part.partition(":")
        rank = HEADING_RANKS.get(heading_key(head)) if len(head) < 50 else None
        if rank is not None and (colon or len(part) < 50):
            above, part = rank, rest.strip()
        if part:
            yield _rank(part, above), part


def _rank(part: str, above: int | None) -> int:
    if above == BOILERPLATE or _BOILERPLATE.search(part):
        return BOILERPLATE
    if above == REQUIREMENT or _CUES.search(part):
        return REQUIREMENT
    return OTHER if above is None else above
