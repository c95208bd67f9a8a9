"""The text of a document, line by line in reading order. Runs in a process of its own (`document_worker`)."""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynaq.errors import InputError
from dynaq.ingest.encodings import detect_encoding
from dynaq.ingest.html import html_to_text
from dynaq.ingest.limits import DOCUMENT_BYTES, DOCUMENT_CHARS, DOCUMENT_PAGES
from dynaq.ingest.page_layout import page_lines
from dynaq.ingest.zips import check_zip
from dynaq.personal.redaction import COLUMN_MARK

DOCUMENT_SUFFIXES = (".pdf", ".docx", ".txt", ".html", ".htm")
NOTE_PAGES = f"only the first {DOCUMENT_PAGES} pages of a document read"
NOTE_CHARS = f"a document cut after {DOCUMENT_CHARS:,} characters"
_PAGE_NUMBER = re.compile(r"\d+")
_TABLE_DEPTH = 4

BULLET = "• "


def document_lines(path: Path) -> tuple[list[str], list[str]]:
    """(lines, notes) of a document: "" where the layout leaves a gap, a tab between the cells of a row.

    Raises InputError when no text can be read; the message omits the path.
    """
    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns about every oddity in a font
    if path.stat().st_size > DOCUMENT_BYTES:
        raise InputError(f"larger than {DOCUMENT_BYTES >> 20} MiB; save it with smaller pictures or as text")
    notes: list[str] = []
    suffix = path.suffix.lower()
    readers = {".pdf": _pdf, ".docx": _docx, ".html": _html, ".htm": _html, ".txt": _txt}
    lines: list[str] = []
    chars = 0
    for line in readers[suffix](path, notes):
        clean = re.sub(r"[^\S\t]+", " ", line.replace("\0", "")).strip()
        clean = clean if clean == COLUMN_MARK else clean.replace(COLUMN_MARK, "")
        if clean or (lines and lines[-1]):
            lines.append(clean)
        chars += len(clean)
        if chars > DOCUMENT_CHARS:
            notes.append(NOTE_CHARS)
            break
    if not any(lines):
        raise InputError("no text in it")
    return lines, notes


def _pdf(path: Path, notes: list[str]) -> Iterator[str]:
    import pdfplumber
    from pdfminer.pdfdocument import PDFEncryptionError, PDFPasswordIncorrect
    from pdfminer.pdfparser import PDFSyntaxError
    from pdfplumber.utils.exceptions import PdfminerException

    with path.open("rb") as file:
        if b"%PDF-" not in file.read(1024):
            raise InputError("no PDF, whatever its name says")
    pages: list[list[str]] = []
    images = 0
    try:
        with pdfplumber.open(path) as pdf:
            for number, page in enumerate(_pages(pdf)):
                if number == DOCUMENT_PAGES:
                    notes.append(NOTE_PAGES)
                    break
                words = page.extract_words(x_tolerance_ratio=0.2, extra_attrs=["size"])
                images += bool(page.images)
                pages.append(page_lines(words, float(page.width)))
                page.close()
    except (PDFPasswordIncorrect, PDFEncryptionError):
        raise InputError("protected by a password; save it without") from None
    except PdfminerException as error:
        if isinstance(error.args[0] if error.args else None, (PDFPasswordIncorrect, PDFEncryptionError)):
            raise InputError("protected by a password; save it without") from None
        raise InputError("a broken PDF; print it to a PDF anew") from None
    except (PDFSyntaxError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
        raise InputError(f"a broken PDF ({type(error).__name__}); print it to a PDF anew") from None
    text = "".join(line for page in pages for line in page)
    if not text.strip():
        raise InputError(
            "a scan without text; run OCR over it first (for example ocrmypdf)" if images else "no text in it"
        )
    if len(re.findall(r"\(cid:\d+\)", text)) * 25 > len(text):
        raise InputError("its fonts do not say which letters they draw; run OCR over it first (for example ocrmypdf)")
    yield from _without_running_heads(pages)


def _pages(pdf: Any) -> Iterator[Any]:
    """Pages one at a time: `pdf.pages` would build all of them, even 10,000."""
    from pdfminer.pdfpage import PDFPage
    from pdfplumber.page import Page

    for number, page in enumerate(PDFPage.create_pages(pdf.doc), start=1):
        yield Page(pdf, page, page_number=number)


def _without_running_heads(pages: list[list[str]]) -> Iterator[str]:
    """Lines of all pages. Headers and footers that recur on every page, but for the page number, appear once."""

    def ends(page: list[str]) -> set[str]:
        return {_PAGE_NUMBER.sub("#", line) for line in (page[:1] + page[-1:]) if line.strip()}

    repeated = Counter(line for page in pages for line in ends(page))
    running = {line for line, count in repeated.items() if len(pages) > 1 and count == len(pages)}
    said: set[str] = set()
    for page in pages:
        for i, line in enumerate(page):
            key = _PAGE_NUMBER.sub("#", line)
            if key in running and i in (0, len(page) - 1):
                if key in said:
                    continue
                said.add(key)
            yield line
        yield ""


def _docx(path: Path, notes: list[str]) -> Iterator[str]:
    from docx import Document
    from docx.opc.exceptions import PackageNotFoundError
    from lxml.etree import LxmlError

    try:
        with path.open("rb") as file:
            check_zip(file, path, "document")
        document = Document(str(path))
    except zipfile.BadZipFile:
        raise InputError("no .docx document, whatever its name says") from None
    except InputError as error:
        raise InputError(str(error).replace(f"document {path} ", "")) from None
    except (PackageNotFoundError, KeyError, ValueError, LxmlError) as error:
        raise InputError(f"a broken .docx document ({type(error).__name__}); save it anew") from None
    section = document.sections[0] if document.sections else None
    if section is not None:
        headers = [section.first_page_header] if section.different_first_page_header_footer else []
        for header in [*headers, section.header]:
            yield from _blocks(header, 0)
        yield ""
    yield from _blocks(document, 0)
    yield ""
    word = f"{{{document.element.nsmap['w']}}}"
    for box in document.element.body.iter(f"{word}txbxContent"):
        if not any(parent.tag.endswith("}Fallback") for parent in box.iterancestors()):
            for paragraph in box.iter(f"{word}p"):
                yield "".join(text.text or "" for text in paragraph.iter(f"{word}t"))
            yield ""


def _blocks(container: Any, depth: int) -> Iterator[str]:
    """Lines of paragraphs and tables, in document order."""
    from docx.table import Table

    for block in container.iter_inner_content():
        if isinstance(block, Table):
            if depth < _TABLE_DEPTH:
                yield from _table(block, depth)
                yield ""
            continue
        style = (block.style.name or "") if block.style is not None else ""
        numbered = block._p.pPr is not None and block._p.pPr.numPr is not None
        bullet = BULLET if (style.startswith("List") or numbered) and block.text.strip() else ""
        if style.startswith("Heading"):
            yield ""
        yield from (bullet + line for line in block.text.split("\n"))


def _table(table: Any, depth: int) -> Iterator[str]:
    """Lines of a table: row by row if it holds data, column by column if it lays out the page."""
    rows: list[list[list[str]]] = []
    seen: set[Any] = set()
    for row in table.rows:
        cells = []
        for cell in row.cells:
            if cell._tc in seen:  # python-docx repeats a merged cell for every place that it covers
                continue
            seen.add(cell._tc)
            cells.append(list(_blocks(cell, depth + 1)))
        rows.append(cells)
    if any(sum(bool(line.strip()) for line in cell) >= 3 for cells in rows for cell in cells):
        for column in range(max(map(len, rows))):
            for cells in rows:
                if column < len(cells):
                    yield from cells[column]
                    yield ""
    else:
        for cells in rows:
            yield "\t".join(text for cell in cells if (text := " ".join(filter(None, cell)).strip()))


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"{\\rtf"):
        raise InputError("a rich text file, whatever its name says; save it as .docx or .pdf")
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    encoding = detect_encoding(content)
    if b"\0" in content and not encoding.startswith("utf-16"):
        raise InputError("no text, whatever its name says")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise InputError("no text, whatever its name says") from None
        raise InputError(f"broken {encoding.upper()} at byte {error.start + 1}; save it as UTF-8") from None


def _txt(path: Path, notes: list[str]) -> Iterator[str]:
    yield from _decoded(path).splitlines()


def _html(path: Path, notes: list[str]) -> Iterator[str]:
    for line in html_to_text(_decoded(path)).split("\n"):
        yield BULLET + line[2:] if line.startswith("* ") else line
