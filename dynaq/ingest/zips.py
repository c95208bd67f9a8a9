"""Checks zip containers (`.xlsx`, `.docx`) before a library unpacks them into memory."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

from dynaq.errors import InputError
from dynaq.ingest.limits import RATIO_FROM_BYTES, ZIP_BYTES, ZIP_MEMBERS, ZIP_RATIO

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
    if len(members) > ZIP_MEMBERS or size > ZIP_BYTES or (
        size > RATIO_FROM_BYTES and size > ZIP_RATIO * packed
    ):  # fmt: skip
        raise InputError(f"{what} {path} would unpack to {size >> 20} MiB from {packed >> 10} KiB; it is not read")
