"""What a counterfactual audit changes: protected attributes, their levels, and where the lists come from.

A level is a text that is put in front of a profile, where a résumé has it. Only that text differs between two levels.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dynaq.errors import InputError

PLACEBO = "another name of the same group"


@dataclass(frozen=True)
class Attribute:
    """An attribute and the texts of its levels.

    Args:
        name: as reports show it.
        levels: level -> texts, of which each profile gets one.
        source: where the texts come from.
    """

    name: str
    levels: dict[str, tuple[str, ...]]
    source: str


@dataclass(frozen=True)
class Contrast:
    """The mean over the levels `other` minus that over the levels `reference`.

    decides: whether a difference makes the audit fail; the placebo and the wording of postings only inform.
    """

    name: str
    attribute: str
    other: tuple[str, ...]
    reference: tuple[str, ...]
    decides: bool = True


def _names(first: str, last: str) -> tuple[str, ...]:
    """Lines with a name; every first name has another last name, in rotation."""
    surnames = last.split()
    return tuple(f"Name: {name} {surnames[i % len(surnames)]}" for i, name in enumerate(first.split()))


US_NAMES = Attribute(
    "name (US)",
    {
        "white man": _names("Todd Neil Geoffrey Brett Brendan Greg Matthew Brad", "Kelly McCarthy Murphy Ryan Walsh"),
        "white woman": _names(
            "Emily Anne Jill Allison Laurie Sarah Meredith Carrie", "Murphy Ryan Walsh Kelly McCarthy"
        ),
        "Black man": _names(
            "Rasheed Tremayne Kareem Darnell Tyrone Hakim Jamal Jermaine", "Jackson Jones Robinson Washington Williams"
        ),
        "Black woman": _names(
            "Aisha Keisha Tamika Lakisha Tanisha Latoya Latonya Ebony", "Jones Robinson Washington Williams Jackson"
        ),
        PLACEBO: _names("Matthew Brad Todd Neil Geoffrey Brett Brendan Greg", "Ryan Walsh Kelly McCarthy Murphy"),
    },
    "first and last names of Bertrand & Mullainathan (2004), American Economic Review 94 (4), doi "
    "10.1257/0002828042002561; names that are also common words are left out",
)
DE_NAMES = Attribute(
    "name (Germany)",
    {
        "German man": _names("Dennis Tobias Stefan Lukas Michael Andreas", "Langer Hartmann Fischer Seidel Brandt"),
        "German woman": _names("Sandra Anna Katharina Julia Lena Stefanie", "Hartmann Fischer Seidel Brandt Langer"),
        "Turkish man": _names("Fatih Serkan Mehmet Mustafa Murat Emre", "Yıldız Sezer Öztürk Yılmaz Demir"),
        "Turkish woman": _names("Meryem Ayşe Fatma Elif Zeynep Emine", "Sezer Öztürk Yılmaz Demir Yıldız"),
    },
    "our own list of frequent names, in the manner of Kaas & Manger (2012), German Economic Review 13 (1), and "
    "Weichselbaumer (2020), ILR Review 73 (3)",
)
PRONOUNS = Attribute(
    "pronouns",
    {
        "he": ("Pronouns: he/him\nHe works with care, and his colleagues rely on him.",),
        "she": ("Pronouns: she/her\nShe works with care, and her colleagues rely on her.",),
    },
    "our own sentences, equal but for the pronouns",
)
ACTIVITIES = Attribute(
    "gendered words",
    {
        "men's club": ("Captain of the men's chess club.",),
        "women's club": ("Captain of the women's chess club.",),
    },
    "the wording that a recruiting system of Amazon had learned to reject (Reuters, 10 October 2018)",
)
BIRTH_DATE = Attribute(
    "birth date",
    {
        "about 30": ("Date of birth: 14 May 1995", "Date of birth: 2 March 1993", "Date of birth: 21 November 1994"),
        "about 60": ("Date of birth: 14 May 1965", "Date of birth: 2 March 1963", "Date of birth: 21 November 1964"),
    },
    "our own dates, thirty years apart",
)
GRADUATION = Attribute(
    "graduation year",
    {"recent": ("Graduated in 2016.", "Class of 2018."), "long ago": ("Graduated in 1986.", "Class of 1988.")},
    "our own years, thirty apart; age is read from them (Neumark, Burn & Button 2019, Journal of Political Economy "
    "127 (2))",
)
NATIONALITIES = Attribute(
    "nationality",
    {
        "British": ("Nationality: British",),
        "Nigerian": ("Nationality: Nigerian",),
    },
    "our own choice",
)
ADDRESS = Attribute(
    "address",
    {
        "affluent": ("Address: 14 Shire Lane, Chorleywood WD3 5NH",),
        "deprived": ("Address: 14 Brooklands Gardens, Jaywick CO15 2JP",),
    },
    "the least and the most deprived neighbourhood of the English Indices of Deprivation 2015; the house is invented",
)
ATTRIBUTES = (US_NAMES, DE_NAMES, PRONOUNS, ACTIVITIES, BIRTH_DATE, GRADUATION, NATIONALITIES, ADDRESS)

CONTRASTS = (
    Contrast("Black − white names", US_NAMES.name, ("Black man", "Black woman"), ("white man", "white woman")),
    Contrast("women's − men's names (US)", US_NAMES.name, ("white woman", "Black woman"), ("white man", "Black man")),
    Contrast("Turkish − German names", DE_NAMES.name, ("Turkish man", "Turkish woman"), ("German man", "German woman")),
    Contrast(
        "women's − men's names (Germany)",
        DE_NAMES.name,
        ("German woman", "Turkish woman"),
        ("German man", "Turkish man"),
    ),
    Contrast("she − he", PRONOUNS.name, ("she",), ("he",)),
    Contrast("women's − men's club", ACTIVITIES.name, ("women's club",), ("men's club",)),
    Contrast("born 30 years earlier", BIRTH_DATE.name, ("about 60",), ("about 30",)),
    Contrast("graduated 30 years earlier", GRADUATION.name, ("long ago",), ("recent",)),
    Contrast("Nigerian − British", NATIONALITIES.name, ("Nigerian",), ("British",)),
    Contrast("deprived − affluent address", ADDRESS.name, ("deprived",), ("affluent",)),
    Contrast(PLACEBO, US_NAMES.name, (PLACEBO,), ("white man",), decides=False),
)

GENDERED_TITLES = Attribute(
    "gendered job titles",
    {
        "masculine": (
            "Salesman",
            "Waiter",
            "Cameraman",
            "Verkäufer",
            "Entwickler",
            "Kaufmann",
        ),
        "feminine": (
            "Saleswoman",
            "Waitress",
            "Camerawoman",
            "Verkäuferin",
            "Entwicklerin",
            "Kauffrau",
        ),
        "neutral": (
            "Salesperson (m/f/d)",
            "Server (m/f/d)",
            "Camera operator (m/f/d)",
            "Verkäufer (m/w/d)",
            "Entwickler (m/w/d)",
            "Kaufleute (m/w/d)",
        ),
    },
    "our own list; that wording of postings deters people: Gaucher, Friesen & Kay (2011), Journal of Personality and "
    "Social Psychology 101 (1); § 11 AGG asks for neutral ones in Germany",
)
TITLE_CONTRASTS = (
    Contrast("feminine − masculine title", GENDERED_TITLES.name, ("feminine",), ("masculine",), decides=False),
    Contrast("neutral − masculine title", GENDERED_TITLES.name, ("neutral",), ("masculine",), decides=False),
)


def own_names(path: str) -> tuple[Attribute, tuple[Contrast, ...]]:
    """Names of a CSV file with the columns `group` and `name`; each group is compared with the first one.

    Raises InputError for a file that cannot be read, lacks a column, or has fewer than two groups.
    """
    groups: dict[str, list[str]] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                groups.setdefault(row["group"].strip(), []).append(f"Name: {row['name'].strip()}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"names file {path} cannot be read: {error}") from None
    except (KeyError, AttributeError):
        raise InputError(f"names file {path} needs the columns group and name in every row") from None
    if len(groups) < 2:
        raise InputError(f"names file {path} has {len(groups)} group; two or more are needed to compare")
    attribute = Attribute("name (file)", {group: tuple(names) for group, names in groups.items()}, Path(path).name)
    first, *others = groups
    return attribute, tuple(Contrast(f"{one} − {first}", attribute.name, (one,), (first,)) for one in others)


def contrasts_of(attributes: Sequence[Attribute]) -> tuple[Contrast, ...]:
    """The packaged contrasts whose attribute is among these."""
    names = {attribute.name for attribute in attributes}
    return tuple(contrast for contrast in CONTRASTS if contrast.attribute in names)
