"""Messy records: lists and HTML in cells, duplicates, people and their documents, each with its outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx

from tests.support.messy_tables import COOK, Case


def _document(*paragraphs: str) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        made = docx.Document()
        for paragraph in paragraphs:
            made.add_paragraph(paragraph)
        made.save(str(path))

    return write


SENTENCE = "You know how to work with large tables of data, and you like to share what you know with others"
LONG = "word " * 25_000
SKILLS = {"technical_skills": ("Python", "SQL")}

RECORDS: dict[str, Case] = {
    # Cells.
    "a Python list": Case(
        "a.csv", "id,title,skills\n1,Dev,\"['Python', 'SQL']\"\n", (1, 1, 0), "Python's notation", SKILLS
    ),
    "a NumPy list": Case(
        "a.csv", "id,title,skills\n1,Dev,\"['Python' 'SQL']\"\n", (1, 1, 0), "Python's notation", SKILLS
    ),
    "a JSON list": Case("a.csv", 'id,title,skills\n1,Dev,"[""Python"", ""SQL""]"\n', (1, 0, 0), "", SKILLS),
    "objects with names, as hh.ru has them": Case(
        "a.csv",
        "id,title,key_skills\n1,Dev,\"[{'name': 'Python'}, {'name': 'SQL'}]\"\n",
        (1, 1, 0),
        "by their names",
        SKILLS,
    ),
    "one object with a name": Case(
        "a.csv",
        "id,title,experience\n1,Dev,\"{'id': 'x', 'name': '1–3 years'}\"\n",
        (1, 1, 0),
        "by their names",
        {"experience_requirements": ("1–3 years",)},
    ),
    "objects with names in .jsonl": Case(
        "a.jsonl",
        '{"id": 1, "name": "Dev", "key_skills": [{"name": "Python"}, {"name": "SQL"}]}',
        (1, 1, 0),
        "by their names",
        SKILLS,
    ),
    "commas": Case("a.csv", 'id,title,skills\n1,Dev,"Python, SQL"\n', (1, 1, 0), "split into its parts", SKILLS),
    "commas in brackets and numbers": Case(
        "a.csv",
        'id,title,skills\n1,Dev,"AWS (EC2, S3), 10,000 users"\n',
        (1, 1, 0),
        "split",
        {"technical_skills": ("AWS (EC2, S3)", "10,000 users")},
    ),
    "a sentence in a column of skills": Case(
        "a.csv",
        f'id,title,skills\n1,Dev,"{SENTENCE}"\n',
        (1, 0, 0),
        "",
        None,
    ),
    "bullets in a column of skills": Case(
        "a.csv", 'id,title,skills\n1,Dev,"• Python\n• SQL"\n', (1, 1, 0), "split", SKILLS
    ),
    "code in a cell": Case(
        "a.csv",
        "id,title,skills\n1,Dev,\"[__import__('os').system('x')]\"\n",
        (1, 0, 0),
        "",
        {"technical_skills": ("[__import__('os').system('x')]",)},
    ),
    "a cell of brackets without end": Case("a.csv", f"id,title,skills\n1,Dev,{'[' * 5000}\n", (1, 0, 0), "", None),
    "HTML": Case(
        "a.csv",
        'id,title,description\n1,Dev,"<p>Hi<br>there</p><script>alert(1)</script><style>p{}</style>"\n',
        (1, 1, 0),
        "HTML turned into text",
        {"description": "Hi\nthere"},
    ),
    "references of characters": Case("a.csv", "id,title\n1,R&amp;D\n", (1, 1, 0), "HTML", {"title": "R&D"}),
    "escaped HTML": Case(
        "a.csv", "id,title,description\n1,Dev,&lt;p&gt;Hi&lt;/p&gt;\n", (1, 1, 0), "HTML", {"description": "Hi"}
    ),
    "a thousand nested elements": Case(
        "a.csv", f"id,title,description\n1,Dev,{'<div>' * 20_000}Hi\n", (1, 1, 0), "HTML", None
    ),
    "angle brackets that are no HTML": Case(
        "a.csv",
        "id,title,description\n1,Dev,a < b and List<String>\n",
        (1, 0, 0),
        "",
        {"description": "a < b and List<String>"},
    ),
    "a cell of 125,000 characters": Case(
        "a.csv", f"id,title,description\n1,Dev,{LONG}\n", (1, 1, 0), "cut there", None
    ),
    "nan and None": Case(
        "a.csv", "id,title,description\n1,Dev,nan\n2,None,x\n", (1, 1, 1), "title", {"description": ""}
    ),
    "a number for a title": Case("a.csv", "id,title\n1,2024\n", (1, 0, 0), "", {"title": "2024"}),
    "only a header": Case("a.csv", "id,title\n", None, "holds no records"),
    # Duplicates.
    "the same posting twice": Case("a.csv", "id,title\n1,Cook\n2,cook \n", (2, 0, 0), "", COOK),
    "duplicates dropped": Case(
        "a.csv", "id,title\n1,Cook\n2,Cook\n", (1, 0, 0), "", COOK, options={"duplicates": "drop"}, total=1
    ),
    "a first look": Case("a.csv", "id,title\n1,Cook\n2,Nurse\n", (1, 0, 0), "", COOK, options={"limit": 1}),
    # People.
    "Kaggle's résumés": Case(
        "a.csv",
        "ID,Resume_str,Category\n1,I cook soups,CHEF\n",
        (1, 0, 0),
        "bio ← Resume_str",
        {"bio": "I cook soups"},
        "candidates",
    ),
    "experience that is a text": Case(
        "a.csv",
        f"id,bio,experience\n1,I cook,{'I cooked soups for many years and liked it. ' * 9}\n",
        (1, 1, 0),
        "into the bio",
        {"experience": ()},
        "candidates",
    ),
    "a person's name in a column": Case(
        "a.csv",
        'Name,Email,About\nJane Doe,j@d.io,"Jane Doe cooks, write to j@d.io"\n',
        (1, 0, 0),
        "left out: Name, Email",
        {"bio": "cooks, write to"},
        "candidates",
    ),
    "a résumé": Case(
        "a.docx", _document("Skills", "Python, SQL"), (1, 0, 0), "", {"hard_skills": ("Python", "SQL")}, "candidates"
    ),
    "a .docx that is none": Case("a.docx", b"hello", None, "no .docx document", kind="candidates"),
    "a .pdf that is none": Case("a.pdf", b"hello", None, "no PDF", kind="candidates"),
    "a broken .pdf": Case("a.pdf", b"%PDF-1.7\n" + b"1 0 obj <<" * 99, None, "no text|broken PDF", kind="candidates"),
    "an empty .txt": Case("a.txt", b" \n", None, "no text in it", kind="candidates"),
    "rich text named .txt": Case("a.txt", b"{\\rtf1 hello}", None, "rich text", kind="candidates"),
    "a picture named .txt": Case("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\0IHDR\0\0\0", None, "no text", kind="candidates"),
    "cp1251 in a .txt": Case(
        "a.txt",
        "Навыки\nмакияж, аквагрим, уход за кожей\n".encode("cp1251"),
        (1, 0, 0),
        "",
        {"hard_skills": ("макияж", "аквагрим", "уход за кожей")},
        "candidates",
    ),
}
