"""Patterns and labels by which personal data is recognised, in the most common languages of résumés."""

from __future__ import annotations

import re

from dynaq.field_names import normalise

NAMES, EMAILS, PHONES, ADDRESSES = "names", "e-mails", "phones", "addresses"
BIRTH, NATIONALITY, PHOTOS, LINKS = "birth dates and ages", "nationalities", "photos", "links to profiles"
GENDER = "pronouns and gendered words"

_LABELS: dict[str, str] = {
    NAMES: "name|full name|first name|last name|surname|family name|given name|имя|фамилия|отчество|фио|ф\\.и\\.о\\.|"
    "vorname|nachname|vor- und nachname|nom|prénom|nom et prénom|nombre|apellidos?|nombre y apellidos|nome|姓名|氏名",
    EMAILS: "e-?mail|mail|email address|эл\\. ?почта|электронная почта|почта|correo|courriel|邮箱",
    PHONES: "phone|tel|tel\\.|telephone|mobile|cell|phone number|телефон|тел\\.|моб\\.|мобильный|telefon|handy|mobil|"
    "téléphone|portable|teléfono|móvil|telefone|电话|電話|whatsapp|viber|telegram|skype",
    ADDRESSES: "address|home address|residence|place of residence|city of residence|адрес|адрес проживания|"
    "проживает|место жительства|anschrift|adresse|wohnort|domicile|dirección|domicilio|endereço|地址|住所",
    BIRTH: "date of birth|birth ?date|d\\.?o\\.?b\\.?|born|place of birth|age|дата рождения|родил(?:ся|ась)|возраст|"
    "место рождения|geburtsdatum|geboren|geburtsort|alter|date de naissance|né\\(?e?\\)? le|âge|lieu de naissance|"
    "fecha de nacimiento|lugar de nacimiento|edad|data de nascimento|data di nascita|出生日期|生年月日",
    NATIONALITY: "nationality|citizenship|citizen|гражданство|национальность|staatsangehörigkeit|nationalität|"
    "staatsbürgerschaft|nationalité|citoyenneté|nacionalidad|ciudadanía|nacionalidade|cittadinanza|国籍|"
    "marital status|gender|sex|семейное положение|пол|familienstand|geschlecht|situation familiale|estado civil",
    GENDER: "pronouns|preferred pronouns|pronomen|pronoms|pronombres",
    PHOTOS: "photo|photograph|picture|фото|фотография|foto|lichtbild|照片",
    LINKS: "linkedin|github|xing|facebook|instagram|twitter|vk|website|web|homepage|url|сайт",
}
LABELLED = [
    (kind, re.compile(rf"^\W*(?:{labels})\s*(?:[:：]|\s[–—-]\s)\s*(?P<value>.*)$", re.IGNORECASE))
    for kind, labels in _LABELS.items()
]
ONLY_LABEL = [(kind, re.compile(rf"^\W*(?:{labels})\W*$", re.IGNORECASE)) for kind, labels in _LABELS.items()]

WORD = r"[A-ZÀ-ÖØ-ÞĀ-ŽА-ЯЁІЇЄ][\w'’-]+"
_BIRTH_DATE = (
    r"(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d\d|(?:19|20)\d\d-\d\d-\d\d|\d{1,2}(?:st|nd|rd|th|er|\.)?\s+(?:de\s+)?"
    r"[^\W\d_]{3,9}\.?,?\s+(?:de\s+)?(?:19|20)\d\d|[A-Z][a-z]{2,8}\.?\s+\d{1,2},?\s+(?:19|20)\d\d|(?:19|20)\d\d)"
)
SAID_NAME = re.compile(
    r"(?i:\b(?:my name is|меня зовут|ich heiße|mein name ist|je m['’]appelle|me llamo|mi nombre es|mi chiamo))"
    rf"\s+(?P<name>{WORD}(?:\s+{WORD}){{0,2}})"
)
_HOUSE = (
    rf"(?:(?:\b(?:Flat|Studio|Unit|Apartment|Apt\.?)\s\w+,?\s+)?\b(?:\d{{1,5}}[A-Za-z]?,?\s+)?{WORD}(?:\s{WORD}){{0,3}}"
    r"(?:,?\s+(?:Apt|Suite|Unit)\.?\s*\w+)?,\s*)?"
)
PATTERNS: list[tuple[str, re.Pattern[str]]] = [
    (PHOTOS, re.compile(r"data:image/[\w+.-]+;base64,[\w+/=\s]+")),
    (
        EMAILS,
        re.compile(
            r"(?:mailto:)?[\w.+%'-]+\s?(?:@|\(at\)|\[at\]|\(собака\))\s?[\w-]+(?:\s?(?:\.|\(dot\)|\[dot\])\s?[a-z]{2,}){1,3}\b",
            re.I,
        ),
    ),
    (
        LINKS,
        re.compile(
            r"(?:https?://)?(?:[\w-]+\.)*(?:linkedin\.com|github\.com|gitlab\.com|t\.me|vk\.com|facebook\.com|fb\.com|"
            r"instagram\.com|twitter\.com|x\.com|xing\.com|hh\.ru/resume|behance\.net|dribbble\.com|medium\.com|"
            r"stackoverflow\.com/users)/[^\s,;|)]+",
            re.I,
        ),
    ),
    (
        BIRTH,
        re.compile(
            rf"\b(?:born|родил(?:ся|ась)|geboren|née? le|nacid[oa] el)\s*(?:on|in|am|im|:)?\s*{_BIRTH_DATE}"
            r"(?:\s*(?:г\.|года))?|\b\d{2}\s*(?:years? old|-year-old|y\.?o\.?|jahre alt|años de edad)\b"
            r"|\b(?:aged|age)\s+\d{2}\b",
            re.I,
        ),
    ),
    (BIRTH, re.compile(r"\b(?:мужчина|женщина|male|female)\s*,\s*\d{2}(?:\s+(?:год|года|лет|years?))?\b", re.I)),
    (BIRTH, re.compile(r"\bмне\s+\d{2}\s+(?:год|года|лет)\b", re.I)),
    (
        BIRTH,  # what age is read from
        re.compile(
            r"(?i:(?<=\bgraduated)\s+(?:in|from school in)\s+|"
            r"\b(?:class of|graduation(?: year)?:?|year of graduation:?|abitur|abschlussjahr:?|schulabschluss:?)\s+)"
            r"(?:19|20)\d\d\b"
        ),
    ),
    (
        GENDER,
        re.compile(r"\(?\b(?:she\s?/\s?her(?:s)?|he\s?/\s?him|they\s?/\s?them|sie\s?/\s?ihr|er\s?/\s?ihm)\b\)?", re.I),
    ),
    (
        GENDER,
        re.compile(
            r"\b(?:wo)?men['’]s\s+(?=(?:[\w-]+\s+){0,2}(?:club|team|league|society|choir|network|association)\b)", re.I
        ),
    ),
    (NATIONALITY, re.compile(rf"\b{WORD}\s+(?:citizen|national)\b|\bcitizen of (?:the\s+)?{WORD}(?:\s{WORD})?")),
    (NATIONALITY, re.compile(r"\bграждан(?:ин|ка|ство)\s*:?\s+(?:[А-ЯЁ][\w-]+)(?:\s[А-ЯЁ][\w-]+)?")),
    (NAMES, SAID_NAME),
    (ADDRESSES, re.compile(rf"{_HOUSE}\b{WORD}(?:\s{WORD}){{0,2}},\s*[A-Z]{{2}}\s+\d{{5}}(?:-\d{{4}})?\b")),
    (ADDRESSES, re.compile(rf"{_HOUSE}(?:\b{WORD}(?:\s{WORD})?,?\s+)?\b[A-Z]{{1,2}}\d[A-Z\d]?\s\d[A-Z]{{2}}\b")),
    (
        ADDRESSES,
        re.compile(
            rf"\b\d{{1,5}}[A-Za-z]?,?\s+(?:(?:[NSEW]\.?|{WORD})\s+){{1,4}}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|"
            r"Boulevard|Blvd|Court|Ct|Place|Pl|Way|Square|Sq|Terrace|Close|Crescent|Highway|Parkway|Pkwy)\b\.?"
            rf"(?:,?\s+(?:Apt|Apartment|Suite|Ste|Unit|Flat|#)\.?\s*\w+)?(?:,?\s+{WORD}(?:\s{WORD}){{0,2}})?"
            r"(?:,\s*[A-Z]{2})?(?:\s+\d{5}(?:-\d{4})?)?"
        ),
    ),
    (
        ADDRESSES,
        re.compile(
            rf"\b(?:{WORD}[ -])?[A-ZÄÖÜ]?[\wäöüß.-]*(?:straße|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer)\s*"
            rf"\d{{1,4}}(?:[-/]\d+)?\s?[a-z]?\b(?:,?\s*(?:D-)?\d{{5}}\s+{WORD}(?:[ -]{WORD})?)?",
            re.I,
        ),
    ),
    (
        ADDRESSES,
        re.compile(
            r"(?:\b\d{6},?\s*)?(?:\b(?:г(?:\.|ород)|ст\.|с\.|п\.|к\.|клх|д\.)\s*[А-ЯЁ][\w-]+,?\s*)?"
            r"\b(?:ул\.|улица|ул|пр-т|пр\.|проспект|пр-кт|пер\.|переулок|алл\.|аллея|бул\.|бульвар|б-р|наб\.|набережная|"
            r"ш\.|шоссе|пл\.|площадь)\s*[А-ЯЁ\d][\w\s.-]{1,40}?,?\s*(?:д\.|дом)?\s*\d+(?:/\d+|[а-я]\b)?"
            r"(?:[,/]?\s*(?:корп|к|кв|стр|оф)\.?\s*\d+)*(?:,\s*\d{6}\b)?",
        ),
    ),
    (
        ADDRESSES,
        re.compile(
            r"\b\d{1,4}(?:\s?bis|\s?ter)?,?\s+(?:rue|avenue|boulevard|place|chemin|allée|impasse|quai)\s+[^\n,|\t]{3,40}"
            rf"(?:,?\s*\d{{5}}\s+{WORD}(?:[ -]{WORD}){{0,3}})?|\b(?:Calle|C/|C\.|Avenida|Avda\.?|Plaza|Paseo|"
            r"Pasaje|Ronda|Rambla|Alameda|Urbanización|Cañada|Camino|Glorieta)\s+[^\n,|\t\d]{3,40},?\s*(?:n[º°o.]*\s*)?\d{1,3}\b"
            rf"(?:\s*(?:Piso|Puerta|Apt\.?)\s*\w+\s*)?(?:,\s*{WORD}(?:\s{WORD})?)?(?:,?\s*\d{{5}}\b(?:\s+{WORD})?)?"
        ),
    ),
]
# In English texts only: "he" and "her" are words of other languages, too.
THIRD_PERSON = re.compile(r"\b(?:[Ss]he|[Hh]e|[Hh]ers?|[Hh]is|[Hh]im|[Hh]erself|[Hh]imself)\b")
ENGLISH = re.compile(r"\b(?:the|and|of|with)\b", re.I)
HEAD_CITY = re.compile(
    rf"^(?:(?:[A-Z]{{1,2}}-)?\d{{4,6}}\s+{WORD}(?:[ -]{WORD}){{0,2}}|"
    rf"{WORD}(?:[ -]{WORD}){{0,2}}(?:,\s*(?:[A-Z]{{2}}|{WORD}(?:\s{WORD})?)))"
    r"(?:,?\s*\d{4,6})?$"
)
PHONE_LIKE = re.compile(
    r"(?<![\w/.,-])\+?\(?\d(?:[\d().\-/ \xa0]{6,20})\d(?:\s?(?:x|ext\.?|доб\.?)\s?\d{1,6})?(?!\w)", re.IGNORECASE
)
NANP = re.compile(r"(?:\+?1[-. ]|001[-. ])?\(?\d{3}\)?[-. ]?\d{3}[-. ]\d{4}")  # North America's, valid or not
REGIONS = (
    None,
    "US",
    "GB",
    "DE",
    "FR",
    "ES",
    "IT",
    "RU",
    "UA",
    "PL",
    "NL",
    "CH",
    "AT",
    "IN",
    "BR",
    "CN",
    "JP",
    "KR",
    "TR",
    "AU",
)

PERSONAL_COLUMNS: dict[str, str] = {
    normalise(name): kind
    for kind, names in {
        NAMES: "name, full_name, first_name, last_name, surname, middle_name, family_name, given_name, "
        "candidate_name, applicant_name, имя, фамилия, отчество, фио, vorname, nachname, nom, prénom, nombre, "
        "apellidos, 姓名",
        EMAILS: "email, e-mail, mail, email_address, почта, электронная почта",
        PHONES: "phone, phone_number, mobile, telephone, tel, телефон, telefon",
        ADDRESSES: "address, home_address, street, postcode, zip, адрес, anschrift, adresse",
        BIRTH: "birth_date, date_of_birth, dob, birthday, age, year_of_birth, дата рождения, возраст",
        NATIONALITY: "nationality, citizenship, пол, gender, sex, marital_status, гражданство",
        PHOTOS: "photo, photo_url, picture, avatar, image, фото",
    }.items()
    for name in names.split(", ")
}
