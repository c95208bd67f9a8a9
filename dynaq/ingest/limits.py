"""How much of an input is read, in one place. Each limit is said when it takes effect."""

from __future__ import annotations

MAX_RECORD_BYTES = 15 << 20  # a MongoDB document ends at 16 MiB, and both stores take the same records
CELL_CHARS = 100_000  # of a table's cell; no encoder or judge reads a third of it
HTML_CHARS = 1_000_000
LITERAL_CHARS = 200_000  # of a cell that is read as a Python or JSON list
LIST_ITEMS = 1_000
SAMPLE_RECORDS = 256  # records whose fields tell the columns of a file without a header
SAMPLE_BYTES = 1 << 20  # what the encoding and the delimiter are told from
JSON_BYTES = 1 << 30  # of a .json file, which is read at once; .jsonl has no such limit
UNPACKED_BYTES = 8 << 30
UNPACKED_RATIO = 400  # text packs 5 to 20 times, repetitive logs 100 times; gzip's most is 1032
RATIO_FROM_BYTES = 64 << 20  # below this much unpacked data any ratio is harmless
HEADER_ROWS = 20  # rows in which the header is looked for, below titles and logos
SHEET_ROWS = 50  # rows from which it is told whether a sheet is the table
DOCUMENT_BYTES = 50 << 20
DOCUMENT_PAGES = 50  # of a PDF; what stands on later pages of a résumé is appendices
DOCUMENT_CHARS = 200_000
DOCUMENT_SECONDS = 30.0
DOCUMENT_MEMORY = 2 << 30
