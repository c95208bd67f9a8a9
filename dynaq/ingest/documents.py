"""Applicants' documents, one applicant each: a file or a folder of files, as candidates' raw fields."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynaq.errors import InputError
from dynaq.ingest.document_text import DOCUMENT_SUFFIXES
from dynaq.ingest.document_worker import DocumentWorker
from dynaq.ingest.file_formats import TABLE_SUFFIXES, format_of
from dynaq.ingest.report import replace_file
from dynaq.ingest.resume import resume_fields
from dynaq.ingest.tables import Unreadable
from dynaq.personal.redaction import document_without_personal_data

IDS_FILE = "ingested.csv"
_OURS = frozenset({IDS_FILE, "rejected.jsonl"})
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_DOCUMENT_ADVICE = {
    ".doc": "an old Word document; save it as .docx or .pdf",
    ".rtf": "a rich text file; save it as .docx or .pdf",
    ".odt": "an OpenDocument text; save it as .docx or .pdf",
    ".pages": "a Pages document; export it as .docx or .pdf",
    ".zip": "an archive; unpack it into the folder",
}
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".heic", ".bmp", ".gif", ".webp"})
# Words in file names that do not identify the applicant.
_NEUTRAL = frozenset(
    re.findall(
        r"\w+",
        "cv resume résumé curriculum vitae lebenslauf резюме applicant candidate person profile profil document doc "
        "scan file кандидат соискатель анкета bewerbung id no nr en de ru fr es final new v",
    )
)


@dataclass(frozen=True)
class Document:
    """One document as a candidate's raw fields.

    Args:
        path: the file.
        fields: id, bio, skills and experience, or the reason why the document cannot be used.
        notes: what the user should know.
        personal: kinds of personal data that were removed.
        lines: the text that the fields were found in.
    """

    path: Path
    fields: dict[str, Any] | Unreadable
    notes: list[str] = field(default_factory=list)
    personal: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)


def is_document(path: Path) -> bool:
    """Whether an input is a document or a folder of documents, rather than a table."""
    return path.is_dir() or path.suffix.lower() in DOCUMENT_SUFFIXES


def read_documents(path: Path, *, keep_personal: bool) -> Iterator[Document]:
    """The documents of a folder and its subfolders in order of their paths, or the one file.

    Args:
        path: a document or a folder.
        keep_personal: keep names, addresses and the like, and use the file's name as the id.

    Raises InputError when a folder holds no files.
    """
    with DocumentWorker() as worker:
        for file in document_files(path):
            yield _read(file, worker, keep_personal=keep_personal)


def document_files(path: Path) -> list[Path]:
    """The files that `read_documents` reads. Raises InputError when a folder holds none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _ignored(file.relative_to(path)))
    if not files:
        raise InputError(
            f"folder {path} holds no documents; one of {', '.join(DOCUMENT_SUFFIXES)} per person is expected"
        )
    return files


def _ignored(relative: Path) -> bool:
    return (
        any(part.startswith((".", "~$", "__MACOSX")) for part in relative.parts)
        or relative.name in _OURS
        or relative.name.casefold() in _LITTER
    )


def _read(file: Path, worker: DocumentWorker, *, keep_personal: bool) -> Document:
    suffix = file.suffix.lower()
    if suffix not in DOCUMENT_SUFFIXES:
        return Document(file, Unreadable(_unknown(file, suffix)))
    try:
        lines, notes = worker.lines(file)
    except InputError as error:
        return Document(file, Unreadable(str(error)))
    id_ = _id(file, lines, keep_personal=keep_personal)
    personal: set[str] = set()
    if not keep_personal:
        lines, personal = document_without_personal_data(lines, [file.stem])
    fields = resume_fields(lines)
    if not fields:
        return Document(file, Unreadable("no text in it but personal data"))
    return Document(file, {"id": id_, **fields}, notes, personal, lines)


def _unknown(file: Path, suffix: str) -> str:
    if suffix in _DOCUMENT_ADVICE:
        return _DOCUMENT_ADVICE[suffix]
    if suffix in _PICTURES:
        return "a picture; run OCR over it first (for example ocrmypdf)"
    if format_of(file) in TABLE_SUFFIXES:
        return "a table; name the file itself instead of its folder"
    return f"extension {suffix!r} is not one of {', '.join(DOCUMENT_SUFFIXES)}"


def _id(file: Path, lines: list[str], *, keep_personal: bool) -> str:
    """The file's name if it does not identify the applicant, else 12 hex digits of the text's hash."""
    words = re.findall(r"[^\W\d_]+", file.stem.casefold())
    if keep_personal or (words and all(word in _NEUTRAL for word in words)) or re.fullmatch(r"\d+", file.stem):
        return file.stem
    return f"cv-{hashlib.sha256(chr(10).join(lines).encode('utf-8', 'replace')).hexdigest()[:12]}"


def write_document_ids(ids: Mapping[Path, str]) -> None:
    """Write `ingested.csv`: which file became which candidate. It is kept where the names are, beside the documents."""
    folders: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for path, id_ in ids.items():
        folders[path.parent].append((path.name, id_))
    for folder, rows in folders.items():
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([("file", "id"), *rows])
        replace_file(folder / IDS_FILE, out.getvalue(), "which file became which candidate is not kept")
