"""How much of an input is read, in one place. The user is told whenever a limit takes effect."""

from __future__ import annotations

MAX_RECORD_BYTES = 15 << 20  # MongoDB's limit is 16 MiB, and both stores accept the same records
CELL_CHARS = 100_000  # of a table's cell; no encoder or judge reads even a third of it
HTML_CHARS = 1_000_000
LITERAL_CHARS = 200_000  # of a cell that is parsed as a Python or JSON list
LIST_ITEMS = 1_000
SAMPLE_RECORDS = 256  # records from which the columns of a file without a header are collected
SAMPLE_BYTES = 1 << 20  # from which the encoding and the delimiter are detected
JSON_BYTES = 1 << 30  # of a .json file, which is read as a whole; .jsonl has no such limit
GZIP_BYTES = 8 << 30  # of a .gz file, unpacked
GZIP_RATIO = 400  # text packs 5 to 20 times, repetitive logs 100 times; gzip's maximum is 1032
ZIP_BYTES = 1 << 30  # of an .xlsx or .docx file, unpacked
ZIP_RATIO = 200  # spreadsheets pack 10 to 60 times; zip's maximum is 1032
ZIP_MEMBERS = 20_000
RATIO_FROM_BYTES = 64 << 20  # below this much unpacked data any ratio is harmless
HEADER_ROWS = 20  # rows that are searched for the header, which may stand below titles and logos
SHEET_ROWS = 50  # rows by which the sheet with the table is chosen
DOCUMENT_BYTES = 50 << 20
DOCUMENT_PAGES = 50  # of a PDF; later pages of a résumé are appendices
DOCUMENT_CHARS = 200_000
DOCUMENT_SECONDS = 30.0
DOCUMENT_MEMORY = 2 << 30
