"""Files as UTF-8 bytes: unpacks `.gz`, and converts other encodings, which are detected or named by the user."""

from __future__ import annotations

import codecs
import gzip
import re
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from dynaq.errors import InputError
from dynaq.ingest.limits import GZIP_BYTES, GZIP_RATIO, RATIO_FROM_BYTES, SAMPLE_BYTES

_PIECE = 1 << 20
# The encodings of real exports. Without this list, detection picks exotic ones for short texts.
_PLAUSIBLE = [
    "cp1251", "cp1252", "cp1250", "koi8_r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "euc_jp",
    "gb18030", "big5", "cp949",
]  # fmt: skip
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, seekable; unpacked for a `.gz`. Raises InputError on a broken or suspicious `.gz`."""
    with path.open("rb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        with tempfile.TemporaryFile() as out:
            _unpack(path, file, cast(BinaryIO, out))
            out.seek(0)
            yield cast(BinaryIO, out)


def _unpack(path: Path, file: BinaryIO, out: BinaryIO) -> None:
    packed, size = path.stat().st_size, 0
    try:
        with gzip.open(file) as inner:
            while piece := inner.read(_PIECE):
                size += len(piece)
                if size > GZIP_BYTES or (size > RATIO_FROM_BYTES and size > GZIP_RATIO * packed):
                    raise InputError(
                        f"input file {path} unpacks to over {size >> 20} MiB from {packed >> 10} KiB; "
                        "if it is meant to, unpack it yourself"
                    )
                out.write(piece)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"input file {path} is no whole .gz file ({error})") from None


@contextmanager
def utf8_bytes(path: Path, encoding: str | None) -> Iterator[tuple[BinaryIO, str | None]]:
    """The file as UTF-8, positioned after its byte order mark, and a note for the user, if any.

    Args:
        path: the file.
        encoding: its encoding; None detects it from the bytes.

    Bytes that are invalid in the encoding come out as invalid UTF-8. Raises InputError on an unknown encoding.
    """
    if encoding is not None:
        try:
            encoding = codecs.lookup(encoding).name
        except LookupError:
            raise InputError(f"--encoding {encoding!r} is not known; examples are utf-8, cp1251, utf-16") from None
    with unpacked(path) as file:
        sample = file.read(SAMPLE_BYTES)
        named = encoding is not None
        mark, marked = next(((bom, name) for bom, name in _BOMS if sample.startswith(bom)), (b"", None))
        found = encoding or marked or detect_encoding(sample)
        if found in ("utf-8", "utf-8-sig", "ascii"):
            file.seek(len(mark) if marked == "utf-8" else 0)
            yield file, None
            return
        note = None if named else f"read as {found.upper()}; if letters look wrong, name the encoding with --encoding"
        file.seek(0)
        with tempfile.TemporaryFile() as out:
            _convert(file, cast(BinaryIO, out), found)
            out.seek(0)
            yield cast(BinaryIO, out), note


def _convert(file: BinaryIO, out: BinaryIO, encoding: str) -> None:
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    while piece := file.read(_PIECE):
        out.write(decoder.decode(piece).encode("utf-8", "surrogateescape"))
    out.write(decoder.decode(b"", final=True).encode("utf-8", "surrogateescape"))


def detect_encoding(sample: bytes) -> str:
    """The encoding, detected from a file's beginning; `utf-8` unless the bytes suggest another.

    A file in which most lines are valid UTF-8 counts as UTF-8, so that only the broken lines are lost.
    """
    if b"\0" in sample[:4096]:
        zeros = [sample[start:4096:2].count(0) for start in (0, 1)]
        if max(zeros) > 0.3 * len(sample[:4096]) / 2:
            return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    whole = broken = 0
    lines = sample.split(b"\n")
    for line in lines[:-1] if len(sample) == SAMPLE_BYTES else lines:
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError:
                broken += 1
            else:
                whole += 1
    if whole >= broken:
        return "utf-8"
    from charset_normalizer import from_bytes

    text = b"\n".join(line for line in lines if not line.isascii())[:65536]
    guess = from_bytes(text, cp_isolation=_PLAUSIBLE, threshold=0.6).best()
    if guess is None or not _made_of_words(str(guess)):
        return "utf-8"
    # Windows programs wrote nearly all of these; cp1250 and cp1252 differ in letters that few texts contain.
    return guess.encoding.replace("_", "-") if guess.encoding != "cp1254" else "cp1252"


def _made_of_words(text: str) -> bool:
    """Whether most words with non-ASCII letters look like words, as they do when the encoding is right."""
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    if not words:
        return False
    cjk = any(unicodedata.east_asian_width(char) in "WF" for word in words for char in word)
    return cjk or sum(len(word) >= 3 for word in words) * 2 > len(words)
