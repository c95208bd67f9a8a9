"""Words by which the parts of a résumé are recognised, in the most common languages of résumés."""

from __future__ import annotations

import re

_SECTIONS: dict[str, str] = {
    "summary": "summary, profile, about, about me, professional summary, career summary, executive summary, objective, "
    "career objective, professional profile, personal statement, overview, introduction, о себе, обо мне, профиль, "
    "цель, дополнительная информация, profil, über mich, kurzprofil, zusammenfassung, à propos, perfil, "
    "sobre mí, resumen, sobre mim, resumo",
    "experience": "experience, work experience, professional experience, employment, employment history, "
    "work history, career history, career, relevant experience, positions, опыт работы, опыт, трудовая деятельность, "
    "профессиональный опыт, berufserfahrung, beruflicher werdegang, berufspraxis, praktische erfahrung, expérience, "
    "expériences, expérience professionnelle, expériences professionnelles, parcours professionnel, experiencia, "
    "experiencia laboral, experiencia profesional, experiência, experiência profissional, esperienza, "
    "esperienza professionale, doświadczenie, doświadczenie zawodowe, досвід роботи, 工作经历, 職務経歴, 職歴",
    "hard_skills": "skills, technical skills, hard skills, key skills, core skills, core competencies, competencies, "
    "professional skills, tools, technologies, tech stack, technology stack, expertise, areas of expertise, it skills, "
    "computer skills, skills and tools, навыки, ключевые навыки, профессиональные навыки, технические навыки, умения, "
    "технологии, kenntnisse, fähigkeiten, fachkenntnisse, edv kenntnisse, it kenntnisse, technische kenntnisse, "
    "compétences, compétences techniques, habilidades, competencias, conocimientos, competências, competenze, "
    "umiejętności, навички, 技能, スキル",
    "soft_skills": "soft skills, personal skills, interpersonal skills, strengths, personal qualities, "
    "личные качества, гибкие навыки, persönliche stärken, stärken, soziale kompetenzen, savoir être, qualités, "
    "habilidades blandas, cualidades",
    "education": "education, academic background, education and training, qualifications, studies, образование, "
    "повышение квалификации, ausbildung, bildung, studium, schulbildung, bildungsweg, formation, formations, études, "
    "educación, formación, formação, educação, istruzione, wykształcenie, освіта, 教育背景, 学歴",
    "other": "languages, certifications, certificates, licenses, courses, training, projects, publications, awards, "
    "achievements, volunteering, volunteer work, interests, hobbies, portfolio, языки, знание языков, сертификаты, "
    "курсы, проекты, достижения, интересы, sprachen, sprachkenntnisse, zertifikate, weiterbildung, projekte, "
    "interessen, hobbys, auszeichnungen, langues, certifications, projets, centres d'intérêt, loisirs, idiomas, "
    "certificaciones, proyectos, cursos, intereses, 语言, 資格",
    "personal": "contact, contacts, contact details, contact information, contact me, personal details, "
    "personal information, personal data, references, referees, контакты, контактная информация, личные данные, "
    "персональные данные, личная информация, рекомендации, kontakt, kontaktdaten, "
    "persönliche daten, angaben zur person, referenzen, coordonnées, informations personnelles, état civil, "
    "références, contacto, datos personales, referencias, 联系方式, 个人信息, 連絡先",
}


def heading_key(text: str) -> str:
    """A heading in the form that is compared: case folded, letters and single spaces only, `&` as `and`."""
    text = text.casefold().replace("&", " and ").replace("ё", "е")
    return " ".join(re.findall(r"[^\W\d_]+", text))


HEADINGS: dict[str, str] = {
    heading_key(name): section for section, names in _SECTIONS.items() for name in names.split(", ")
}
_DOCUMENT_TITLES = (
    "curriculum vitae, cv, resume, résumé, lebenslauf, bewerbung, резюме, currículum, curriculum, 简历, 履歴書, page"
)
DOCUMENT_TITLES = frozenset(heading_key(name) for name in re.split(", ", _DOCUMENT_TITLES))

# Words in job titles. A line with one of these is not a name.
OCCUPATION = re.compile(
    r"\b(?:engineer|developer|manager|director|analyst|designer|architect|administrator|consultant|specialist|"
    r"scientist|researcher|assistant|associate|officer|lead|leader|head|chief|intern|trainee|apprentice|teacher|"
    r"lecturer|professor|nurse|doctor|physician|surgeon|pharmacist|therapist|accountant|auditor|bookkeeper|cashier|"
    r"clerk|cook|chef|waiter|waitress|barista|baker|driver|electrician|plumber|carpenter|welder|mechanic|technician|"
    r"operator|supervisor|coordinator|recruiter|salesperson|representative|agent|advisor|adviser|lawyer|attorney|"
    r"paralegal|editor|writer|journalist|translator|photographer|artist|musician|programmer|tester|founder|owner|ceo|"
    r"cto|cfo|president|partner|volunteer|receptionist|secretary|housekeeper|cleaner|guard|librarian|"
    r"inspector|planner|buyer|trainer|coach|hairdresser|stylist|make-up|makeup|beautician|"
    r"(?:senior|junior|middle|staff|principal)|"
    r"\w*(?:entwickler|ingenieur|leiter|berater|techniker|mechaniker|kaufmann|kauffrau|pfleger|verkäufer|fahrer|lehrer|"
    r"referent|assistent|praktikant|koch|köchin|meister|arzt|ärztin|elektriker|elektroniker|schwester|helfer)(?:in)?|"
    r"développeu\w+|ingénieur\w*|responsable|directeur|directrice|chargée?|infirmi\w+|vendeu\w+|cuisini\w+|comptable|"
    r"technicien\w*|desarrollador\w*|ingenier[oa]|gerente|enfermer[oa]|vendedor\w*|cociner[oa]|contable|camarer[oa]|"
    r"инженер\w*|разработчик\w*|программист\w*|менеджер\w*|директор\w*|аналитик\w*|дизайнер\w*|администратор\w*|"
    r"специалист\w*|консультант\w*|руководитель|начальник|бухгалтер\w*|экономист|юрист|врач\w*|медсестра|медбрат|"
    r"учитель|преподаватель|повар\w*|официант\w*|бариста|водитель|электрик|сварщик|слесарь|монтажник|механик|оператор\w*|"
    r"кассир|продавец|мастер|визажист|парикмахер|стилист|тестировщик|секретарь|стажер|помощник|ассистент|"
    r"лаборант|кладовщик|курьер|охранник|маркетолог|редактор|переводчик|журналист|технолог)\b",
    re.IGNORECASE,
)
COMPANY = re.compile(
    r"\b(?:inc|ltd|llc|llp|plc|corp|corporation|company|co|group|holding|bank|university|hospital|clinic|school|college|"
    r"institute|agency|studio|labs?|systems|solutions|technologies|services|gmbh|ag|kg|ohg|se|e\.?v|sarl|sas|sa|srl|"
    r"spa|bv|nv|ab|oy|as|ооо|оао|зао|пао|ао|ип|банк|университет|больница|клиника|школа|завод|компания|группа|"
    r"universität|krankenhaus|klinikum|schule|hôpital|université)\b\.?",
    re.IGNORECASE,
)
