"""A model's answer about a résumé: what stands in the document is kept, everything else is dropped and counted."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from dynaq.errors import DynaqError, InputError
from dynaq.ingest.documents import Document
from dynaq.ingest.resume_model import (
    ASKED_CHARS,
    AT_ONCE,
    CUT,
    GIVE_UP_AFTER,
    LEFT_OUT,
    ResumeReader,
    Unanswered,
    fields_in,
)
from dynaq.ingest.tables import Unreadable

DOCUMENT = """Baker with ten years in hotels. I like early hours.
Head Baker, Hotel Sacher
2019 – 2023
Led a team of five.
Skills: sourdough, C++, cost con\u00adtrol, o\ufb03ce work"""
ANSWER: dict[str, Any] = {
    "bio": "Baker with ten years in hotels. Led a team of five.",
    "hard_skills": ["sourdough", "C++"],
    "soft_skills": [],
    "experience": [{"title": "Head Baker", "company": "Hotel Sacher", "period": "2019 - 2023"}],
}


def without_empty(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if value}


@pytest.mark.parametrize(
    "text",
    [
        "%s",
        "Here is the résumé as JSON:\n```json\n%s\n```\nIs there {anything} else?",
        '<think>They want {"bio": "", "hard_skills": [""]}.</think>%s',
        '{"note": {"a": 1}} %s',
    ],
    ids=["bare", "prose", "thinking", "another object"],
)
def test_the_object_is_found_in_what_surrounds_it(text: str) -> None:
    assert fields_in(text % json.dumps(ANSWER), DOCUMENT) == (without_empty(ANSWER), 0)


def test_words_that_do_not_stand_in_the_document_are_dropped_and_counted() -> None:
    invented = {
        "bio": "Baker with ten years in hotels. She won a prize in 2020.\nLed a team of fifty.",
        "hard_skills": ["sourdough", "Sourdough", "C#", "Kubernetes"],
        "soft_skills": ["early team"],  # both words stand there, but not together
        "experience": [
            {"title": "Head Baker", "company": "Hotel Imperial", "period": None},
            {"title": "Chef", "company": "Hotel Sacher", "period": "2019 – 2023"},
        ],
    }
    fields, left_out = fields_in(json.dumps(invented), DOCUMENT)
    assert fields == {
        "bio": "Baker with ten years in hotels.",
        "hard_skills": ["sourdough"],
        "experience": [{"title": "Head Baker", "company": ""}],
    }
    assert left_out == 7


def test_soft_hyphens_and_ligatures_do_not_hide_what_stands_there() -> None:
    fields, left_out = fields_in('{"hard_skills": ["cost control", "office work"]}', DOCUMENT)
    assert (fields, left_out) == ({"hard_skills": ["cost control", "office work"]}, 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no JSON"),
        ("I cannot help with that.", "no JSON"),
        ('{"bio": "Baker with ten years in hotels.", "hard_skills": ["sour', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"a":' * 16_000, "no JSON"),
        ('{"skills": ["sourdough"]}', "no JSON"),
        ('{"hard_skills": "sourdough"}', "wrong form .hard_skills"),
        ('{"experience": [["Head Baker"]]}', "wrong form .experience.0"),
        (json.dumps({"hard_skills": ["sourdough"] * 301}), "wrong form .hard_skills"),
        ('{"bio": "Nurse"}', "nothing in"),
        ("{}" * 60_000, "too long"),
    ],
)
def test_an_unusable_answer_says_why(answer: str, reason: str) -> None:
    with pytest.raises(Unanswered, match=reason) as caught:
        fields_in(answer, DOCUMENT)
    assert len(str(caught.value)) < 200


class Scripted:
    """Answers with `answers` in turn, the last one for ever; an exception is raised. Remembers what it was shown."""

    def __init__(self, *answers: str | DynaqError) -> None:
        self.answers = list(answers)
        self.shown: list[str] = []

    def ask(self, instructions: str, document: str) -> Future[str]:
        answer = self.answers[min(len(self.shown), len(self.answers) - 1)]
        self.shown.append(document)
        future: Future[str] = Future()
        if isinstance(answer, DynaqError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def documents(count: int, text: str = "sourdough") -> list[Document]:
    return [Document(Path(f"{i}.txt"), {"id": str(i), "bio": text}, lines=[text]) for i in range(count)]


GOOD = '{"hard_skills": ["sourdough"]}'


def test_a_model_that_cannot_be_asked_about_the_first_document_is_an_input_error() -> None:
    model = Scripted(DynaqError("401"))
    with pytest.raises(InputError, match="401; nothing was written"):
        list(ResumeReader(model).read(documents(9)))
    assert len(model.shown) == 1


def test_documents_keep_their_order_and_a_failure_costs_only_its_own() -> None:
    reader = ResumeReader(Scripted(GOOD, Unanswered("too slow"), DynaqError("gone"), GOOD))
    unreadable = Document(Path("x.pdf"), Unreadable("a scan"))
    read = list(reader.read([unreadable, *documents(5)]))
    assert read[0] is unreadable
    assert [d.fields["id"] for d in read[1:] if isinstance(d.fields, dict)] == ["0", "1", "2", "3", "4"]
    assert ["hard_skills" in d.fields for d in read[1:]] == [True, False, False, True, True]
    assert reader.notes() == [
        "1.txt: read by the rules: too slow",
        "2.txt: read by the rules: gone",
        "documents: 3 read by the model, 2 by the rules",
    ]


def test_a_model_that_stopped_answering_is_asked_no_more() -> None:
    model = Scripted(GOOD, DynaqError("gone"))
    reader = ResumeReader(model)
    assert len(list(reader.read(documents(40)))) == 40
    assert len(model.shown) < 1 + GIVE_UP_AFTER + AT_ONCE
    assert "33 more documents read by the rules" in reader.notes()


class Slow:
    """Answers the oldest question only when `AT_ONCE` are open, after the first, which is answered at once."""

    def __init__(self) -> None:
        self.futures: list[Future[str]] = []
        self.most = 0

    def ask(self, instructions: str, document: str) -> Future[str]:
        self.futures.append(Future())
        undone = [future for future in self.futures if not future.done()]
        self.most = max(self.most, len(undone))
        if len(self.futures) == 1 or len(undone) == AT_ONCE:
            undone[0].set_result(GOOD)
        return self.futures[-1]


def test_few_documents_are_under_way_at_once_and_none_after_an_early_end() -> None:
    model = Slow()
    read = ResumeReader(model).read(documents(40))
    for _ in range(10):
        next(read)
    read.close()
    assert model.most == AT_ONCE
    assert len(model.futures) == 10 + AT_ONCE - 1
    assert all(future.done() for future in model.futures)


def test_a_long_document_is_shown_in_part_and_says_so() -> None:
    model = Scripted(GOOD)
    [long] = ResumeReader(model).read(documents(1, "sourdough " * ASKED_CHARS))
    assert len(model.shown[0]) == ASKED_CHARS
    assert long.notes == [CUT]


def test_a_bio_in_the_models_own_words_gives_way_to_the_rules() -> None:
    model = Scripted('{"bio": "An expert.", "hard_skills": ["sourdough"]}')
    [document] = ResumeReader(model).read(documents(1))
    assert document.fields == {"id": "0", "hard_skills": ["sourdough"], "bio": "sourdough"}
    assert document.notes == [LEFT_OUT]
