"""Texts with labelled personal data, on which the recall of its removal is measured. Seeded; all of it is made up."""

from __future__ import annotations

import random
from dataclasses import dataclass

from faker import Faker

from tests.support.occupations import ENGLISH, GERMAN, RUSSIAN

LOCALES = {"en_US": "en", "en_GB": "en", "de_DE": "de", "ru_RU": "ru", "fr_FR": "fr", "es_ES": "es"}
LABELS = {
    "en": ("Name", "Address", "Phone", "E-mail", "Date of birth", "Nationality", "My name is {}.", "born {}"),
    "de": (
        "Name",
        "Anschrift",
        "Telefon",
        "E-Mail",
        "Geburtsdatum",
        "Staatsangehörigkeit",
        "Ich heiße {}.",
        "geboren am {}",
    ),
    "ru": ("ФИО", "Адрес", "Телефон", "Почта", "Дата рождения", "Гражданство", "Меня зовут {}.", "родился {}"),
    "fr": ("Nom", "Adresse", "Téléphone", "E-mail", "Date de naissance", "Nationalité", "Je m'appelle {}.", "né le {}"),
    "es": (
        "Nombre",
        "Dirección",
        "Teléfono",
        "Correo",
        "Fecha de nacimiento",
        "Nacionalidad",
        "Me llamo {}.",
        "nacido el {}",
    ),
}
NATIONS = {"en": "Canadian", "de": "Österreichisch", "ru": "Казахстан", "fr": "Belge", "es": "Chilena"}


@dataclass(frozen=True)
class LabelledText:
    """A text, what of it is personal, and words of it that are not.

    Args:
        shape: how the text says it: `head` of a résumé, `labelled` fields, running `prose`.
        lines: the text.
        personal: kind -> the text that must not be left.
        professional: what must be left.
    """

    locale: str
    shape: str
    lines: tuple[str, ...]
    personal: dict[str, str]
    professional: tuple[str, ...]


def labelled_texts(per_locale: int = 30, seed: int = 0) -> list[LabelledText]:
    """Texts of three shapes in six locales."""
    made = []
    for locale, language in LOCALES.items():
        fake = Faker(locale)
        fake.seed_instance(seed)
        draw = random.Random(f"{locale}-{seed}")
        for number in range(per_locale):
            made.append(_text(locale, language, ("head", "labelled", "prose")[number % 3], fake, draw))
    return made


def _text(locale: str, language: str, shape: str, fake: Faker, draw: random.Random) -> LabelledText:
    label = LABELS[language]
    name = f"{fake.first_name()} {fake.last_name()}"
    address, phone, mail = fake.address().replace("\n", ", "), fake.phone_number(), fake.email()
    birth, nation = fake.date_of_birth(minimum_age=20, maximum_age=60).strftime("%d.%m.%Y"), NATIONS[language]
    pool = {"de": GERMAN, "ru": RUSSIAN}.get(language, ENGLISH)
    job = draw.choice(pool)
    task, title = draw.choice(job.tasks), draw.choice(job.titles)
    personal = {"names": name, "addresses": address, "phones": phone, "e-mails": mail, "birth dates": birth}
    if shape == "head":
        lines = [name, title, f"{mail} | {phone}", address, f"{label[4]}: {birth}", "", "Skills", *job.skills[:3], task]
    elif shape == "labelled":
        personal["nationalities"] = nation
        lines = [
            f"{label[0]}: {name}", f"{label[1]}: {address}", f"{label[2]}: {phone}", f"{label[3]}: {mail}",
            f"{label[4]}: {birth}", f"{label[5]}: {nation}", "", "Skills", *job.skills[:3], task,
        ]  # fmt: skip
    else:
        lines = [
            f"{label[6].format(name)} {title}, {label[7].format(birth)}. {task}.",
            f"{mail}, {phone}, {address}.", ", ".join(job.skills[:3]),
        ]  # fmt: skip
    return LabelledText(locale, shape, tuple(lines), personal, (*job.skills[:3], task))
