"""Checks zip containers (`.xlsx`, `.docx`) before a library unpacks them into memory."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

from dynaq.errors import InputError

UNPACKED_BYTES = 1 << 30
UNPACKED_RATIO = 200  # spreadsheets pack 10 to 60 times; zip's maximum is 1032
RATIO_FROM_BYTES = 64 << 20
MAX_MEMBERS = 20_000
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old Office formats, and encrypted new ones


def check_zip(file: BinaryIO, path: Path, what: str) -> None:
    """Raises InputError when the container is encrypted, or unpacks to implausibly many bytes.

    The sizes are those of its directory; zipfile never reads beyond them.
    """
    file.seek(0)
    magic = file.read(8)
    file.seek(0)
    if magic == OLE_MAGIC:
        raise InputError(
            f"{what} {path} is protected by a password or of an old format; save it without, as Office Open XML"
        )
    with zipfile.ZipFile(file) as container:
        members = container.infolist()
    file.seek(0)
    size, packed = sum(m.file_size for m in members), max(1, sum(m.compress_size for m in members))
    if len(members) > MAX_MEMBERS or size > UNPACKED_BYTES or (
        size > RATIO_FROM_BYTES and size > UNPACKED_RATIO * packed
    ):  # fmt: skip
        raise InputError(f"{what} {path} would unpack to {size >> 20} MiB from {packed >> 10} KiB; it is not read")
