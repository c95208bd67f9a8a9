"""Résumés as people lay them out, with what is true of each person: PDF, DOCX, HTML and text files. Seeded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docx
import matplotlib
from docx.shared import Pt
from faker import Faker
from fpdf import FPDF, XPos, YPos

from tests.support.occupations import ENGLISH, GERMAN, RUSSIAN, Occupation

LOCALES = {"en": ("en_US", "en_GB"), "de": ("de_DE",), "ru": ("ru_RU",)}
_WORDS = {
    "en": "Summary, Work Experience, Skills, Education, Languages, Contact, Date of birth, Nationality, Address, "
    "Phone, present",
    "de": "Profil, Berufserfahrung, Kenntnisse, Ausbildung, Sprachen, Kontakt, Geburtsdatum, Staatsangehörigkeit, "
    "Anschrift, Telefon, heute",
    "ru": "О себе, Опыт работы, Ключевые навыки, Образование, Языки, Контакты, Дата рождения, Гражданство, Адрес, "
    "Телефон, настоящее время",
}
WORDS = {language: words.split(", ") for language, words in _WORDS.items()}
COUNTRIES = {"en": "Canadian", "de": "Österreich", "ru": "Россия"}
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@dataclass(frozen=True)
class Person:
    """What is true of one person, and what a reader may know afterwards."""

    language: str
    name: str
    email: str
    phone: str
    address: str
    birth: str
    nationality: str
    occupation: Occupation
    summary: str
    positions: tuple[tuple[str, str, str, tuple[str, ...]], ...]  # title, company, period, tasks
    skills: tuple[str, ...]
    education: str

    @property
    def personal(self) -> dict[str, str]:
        """Kind of personal data -> the text that must not be left."""
        return {
            "names": self.name, "e-mails": self.email, "phones": self.phone, "addresses": self.address,
            "birth dates": self.birth, "nationalities": self.nationality,
        }  # fmt: skip


def person(seed: int, language: str = "en") -> Person:
    """One person."""
    draw = random.Random(f"{language}-{seed}")
    fake = Faker(draw.choice(LOCALES[language]))
    fake.seed_instance(seed)
    occupation = draw.choice({"en": ENGLISH, "de": GERMAN, "ru": RUSSIAN}[language])
    first, last = fake.first_name(), fake.last_name()
    if language == "ru":
        first, last = fake.first_name_male(), fake.last_name_male()
    words = WORDS[language]
    years = [draw.randint(2008, 2012), draw.randint(2014, 2017), draw.randint(2018, 2021)]
    periods = [f"{years[0]} – {years[1]}", f"{years[1]} – {years[2]}", f"{years[2]} – {words[10]}"]
    positions = tuple(
        (occupation.titles[i % len(occupation.titles)], fake.company(), period, tuple(draw.sample(occupation.tasks, 2)))
        for i, period in enumerate(reversed(periods[-2:]))
    )
    return Person(
        language, f"{first} {last}",
        f"{fake.user_name()}{draw.randint(1, 99)}@{draw.choice(('example.com', 'mail.example.org'))}",
        {"en": "+1 617 555 0{:03d}", "de": "+49 30 901{:03d}45", "ru": "+7 912 345-6{:03d}"}[language].format(
            draw.randint(100, 799)),
        fake.address().replace("\n", ", "), draw.choice(("12.03.1985", "1990-07-21", "3 May 1979")),
        COUNTRIES[language], occupation,
        {"en": "Reliable and curious, with years of practice.", "de": "Zuverlässig und neugierig seit vielen Jahren.",
         "ru": "Надёжный и любознательный сотрудник с опытом."}[language],
        positions, tuple(draw.sample(occupation.skills, min(4, len(occupation.skills)))),
        f"{draw.randint(2001, 2007)} {occupation.requirement}",
    )  # fmt: skip


class _Pdf(FPDF):
    def __init__(self) -> None:
        super().__init__()
        self.add_font("body", "", _FONTS / "DejaVuSans.ttf")
        self.add_font("body", "B", _FONTS / "DejaVuSans-Bold.ttf")
        self.set_auto_page_break(True, 15)
        self.add_page()

    def text_line(self, text: str, size: float = 10, bold: bool = False, width: float = 0) -> None:
        self.set_font("body", "B" if bold else "", size)
        self.multi_cell(width, size * 0.5, text, align="L", new_x=XPos.LEFT, new_y=YPos.NEXT)

    def heading(self, text: str, width: float = 0) -> None:
        self.ln(3)
        self.set_x(self.l_margin)
        self.text_line(text, 13, bold=True, width=width)
        self.ln(1)


def pdf_one_column(path: Path, who: Person) -> Path:
    """Name and contacts on top, periods at the right margin, skills in a comma list that wraps."""
    words, pdf = WORDS[who.language], _Pdf()
    pdf.text_line(who.name, 20, bold=True)
    pdf.text_line(who.positions[0][0], 12)
    pdf.text_line(f"{who.email} | {who.phone} | {who.address}", 8)
    pdf.text_line(f"{words[6]}: {who.birth}   |   {words[7]}: {who.nationality}", 8)
    pdf.heading(words[0])
    pdf.text_line(who.summary)
    pdf.heading(words[1])
    for title, company, period, tasks in who.positions:
        pdf.set_font("body", "B", 10)
        pdf.cell(130, 5, f"{title}, {company.replace(',', '')}")
        pdf.set_font("body", "", 10)
        pdf.cell(0, 5, period, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        for task in tasks:
            pdf.text_line(f"• {task}.")
    pdf.heading(words[2])
    pdf.text_line(", ".join(who.skills), width=90)
    pdf.set_x(pdf.l_margin)
    pdf.heading(words[3])
    pdf.text_line(who.education)
    pdf.output(str(path))
    return path


def pdf_two_columns(path: Path, who: Person) -> Path:
    """A narrow column with contacts and skills beside a wide one with everything else, which starts with the name."""
    words, pdf = WORDS[who.language], _Pdf()
    pdf.set_margins(12, 15)
    pdf.set_xy(12, 20)
    pdf.heading(words[5], 50)
    for line in (who.email, who.phone, who.address, f"{words[6]}: {who.birth}", f"{words[7]}: {who.nationality}"):
        pdf.text_line(line, 8, width=50)
    pdf.heading(words[2], 50)
    for skill in who.skills:
        pdf.text_line(f"• {skill}", width=50)
    pdf.set_left_margin(75)
    pdf.set_xy(75, 20)
    pdf.text_line(who.name, 18, bold=True)
    pdf.text_line(who.positions[0][0], 12)
    pdf.heading(words[0])
    pdf.text_line(who.summary)
    pdf.heading(words[1])
    for title, company, period, tasks in who.positions:
        pdf.text_line(title, 11, bold=True)
        pdf.text_line(f"{company} | {period}", 9)
        for task in tasks:
            pdf.text_line(f"- {task}.")
        pdf.ln(2)
    pdf.heading(words[3])
    pdf.text_line(who.education)
    pdf.output(str(path))
    return path


def docx_headings(path: Path, who: Person) -> Path:
    """Word's headings and bullets; contacts in the page's header."""
    words, document = WORDS[who.language], docx.Document()
    document.sections[0].header.paragraphs[0].text = f"{who.name} · {who.email} · {who.phone}"
    document.add_paragraph(who.name, style="Title")
    document.add_paragraph(f"{words[8]}: {who.address}")
    document.add_paragraph(f"{words[6]}: {who.birth}")
    document.add_paragraph(f"{words[7]}: {who.nationality}")
    document.add_heading(words[0])
    document.add_paragraph(who.summary)
    document.add_heading(words[1])
    for title, company, period, tasks in who.positions:
        document.add_paragraph(f"{title} — {company}, {period}")
        for task in tasks:
            document.add_paragraph(task, style="List Bullet")
    document.add_heading(words[2])
    for skill in who.skills:
        document.add_paragraph(skill, style="List Bullet")
    document.add_heading(words[3])
    document.add_paragraph(who.education)
    document.save(str(path))
    return path


def docx_tables(path: Path, who: Person) -> Path:
    """The page laid out by a table of two columns; the positions in a table of their own."""
    words, document = WORDS[who.language], docx.Document()
    page = document.add_table(1, 2)
    left, right = page.rows[0].cells
    run = left.paragraphs[0].add_run(who.name)
    run.bold, run.font.size = True, Pt(18)
    for line in (words[5], f"{words[9]}: {who.phone}", f"E-Mail: {who.email}", f"{words[8]}: {who.address}"):
        left.add_paragraph(line)
    left.add_paragraph(f"{words[6]}: {who.birth}")
    left.add_paragraph(f"{words[7]}: {who.nationality}")
    left.add_paragraph(words[2].upper())
    left.add_paragraph("; ".join(who.skills))
    right.paragraphs[0].add_run(words[0])
    right.add_paragraph(who.summary)
    document.add_heading(words[1])
    table = document.add_table(0, 3)
    for title, company, period, _ in who.positions:
        cells = table.add_row().cells
        cells[0].text, cells[1].text, cells[2].text = period, title, company
    document.add_heading(words[3])
    document.add_paragraph(who.education)
    document.save(str(path))
    return path


def text_file(path: Path, who: Person) -> Path:
    """Plain text with headings in capitals."""
    words = WORDS[who.language]
    lines = [who.name, who.address, f"{words[9]}: {who.phone}, {who.email}", f"{words[6]}: {who.birth}",
             f"{words[7]}: {who.nationality}", "", words[0].upper(), who.summary, "", words[1].upper()]  # fmt: skip
    for title, company, period, tasks in who.positions:
        lines += ["", period, title, company, *(f"* {task}" for task in tasks)]
    lines += ["", words[2].upper(), ", ".join(who.skills), "", words[3].upper(), who.education]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def html_page(path: Path, who: Person) -> Path:
    """A page as a profile site exports it."""
    words = WORDS[who.language]
    positions = "".join(
        f"<h3>{title}</h3><p>{company}<br>{period}</p><ul>{''.join(f'<li>{task}</li>' for task in tasks)}</ul>"
        for title, company, period, tasks in who.positions
    )
    path.write_text(
        f"<!doctype html><html><head><title>{who.name}</title><style>p {{ color: red }}</style></head><body>"
        f"<h1>{who.name}</h1><p><a href='mailto:{who.email}'>{who.email}</a> {who.phone}</p>"
        f"<p>{words[8]}: {who.address}</p><p>{words[6]}: {who.birth}</p><p>{words[7]}: {who.nationality}</p>"
        f"<h2>{words[0]}</h2><p>{who.summary}</p><h2>{words[1]}</h2>{positions}"
        f"<h2>{words[2]}</h2><ul>{''.join(f'<li>{skill}</li>' for skill in who.skills)}</ul>"
        f"<h2>{words[3]}</h2><p>{who.education}</p><script>var x = 'tracker'</script></body></html>",
        encoding="utf-8",
    )
    return path


LAYOUTS: dict[str, Any] = {
    "one-column.pdf": pdf_one_column,
    "two-columns.pdf": pdf_two_columns,
    "headings.docx": docx_headings,
    "tables.docx": docx_tables,
    "plain.txt": text_file,
    "page.html": html_page,
}


def resume_folder(folder: Path, languages: tuple[str, ...] = ("en",), people: int = 20) -> dict[Path, Person]:
    """A folder of résumés in turn of all layouts; file names are the people's names, as they are in real folders."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Path, Person] = {}
    layouts = list(LAYOUTS.items())
    for number in range(people):
        name, make = layouts[number % len(layouts)]
        who = person(number, languages[number // len(layouts) % len(languages)])
        suffix = Path(name).suffix
        path = folder / f"{who.name.replace(' ', '_').replace('.', '')}_CV_{number}{suffix}"
        made[make(path, who)] = who
    return made
