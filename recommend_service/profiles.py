"""Profiles of applicants: created, changed, and read from documents. Personal data is removed before they are kept."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from dynaq.errors import DynaqError, InputError
from dynaq.ingest.document_text import DOCUMENT_SUFFIXES
from dynaq.ingest.documents import Document, read_documents
from dynaq.ingest.embedding import candidate_texts, content_hash
from dynaq.ingest.parse_records import Rejected, parse_candidate
from dynaq.ingest.tables import Unreadable
from dynaq.layout import Layout
from dynaq.personal.redaction import keeps_personal_data, says_something, without_personal_data
from dynaq.records import Candidate
from dynaq.stores import FloatArray, Store, open_store
from recommend_service.catalogue import applicant_vectors
from recommend_service.newcomers import Applicant
from recommend_service.problems import Problem
from recommend_service.rights import Erased, Read
from recommend_service.schemas import ProfileIn
from recommend_service.text_encoder import Texts
from recommend_service.view_schemas import DocumentRead

T = TypeVar("T")


class Profiles:
    """Writes profiles with their vectors.

    Args:
        uri: of the store.
        store: the same, open for reading.
        texts: its encoder.
        read: calls in the thread that reads the store.
        erased: applicants who were erased.
    """

    def __init__(self, uri: str, store: Store, texts: Texts, read: Read, erased: Erased) -> None:
        self._uri, self._store, self._texts, self._read, self._erased = uri, store, texts, read, erased
        self._one_document = asyncio.Lock()  # each is read in a process that may take a gigabyte

    async def create(self, applicant: Candidate, layout: Layout, *, repeatable: bool) -> Applicant:
        """Embed and store a new profile. Raises Problem.

        repeatable: the same profile that is there already is the result of an earlier attempt, not a conflict.
        """
        applicant, blocks, hash_ = await self._prepared(applicant, layout)

        def write() -> Candidate | None:
            with open_store(self._uri) as store:
                return store.add_applicant(applicant, blocks, hash_)

        before = await self._written(write)
        if before is not None and not (repeatable and before == applicant):
            raise Problem(409, "applicant-exists", f"applicant {applicant.id!r} is in the store already")
        return applicant_vectors(applicant.id, blocks, layout), applicant

    async def change(self, applicant: Candidate, layout: Layout) -> Applicant:
        """Embed a profile and store it in place of the one that is there. Raises Problem."""
        applicant, blocks, hash_ = await self._prepared(applicant, layout)

        def write() -> bool:
            with open_store(self._uri) as store:
                # Whoever was erased meanwhile is not written back.
                if applicant.id in self._erased or not list(store.records("candidate", [applicant.id])):
                    return False
                store.put_records("candidate", [applicant])
                rows = {name: block[None] for name, block in blocks.items()}
                store.put_vectors("candidate", [applicant.id], rows, [hash_])
                return True

        if not await self._written(write):
            raise Problem(404, "unknown-applicant", f"applicant {applicant.id!r} is not in the store")
        return applicant_vectors(applicant.id, blocks, layout), applicant

    async def read_document(self, name: str, data: bytes) -> DocumentRead:
        """The fields of a profile in a document, which is not kept. name: its file's. Raises Problem."""
        keep = keeps_personal_data(await self._read(self._store.meta))
        async with self._one_document:
            found = await asyncio.to_thread(_read_document, name, data, keep_personal=keep)
        if isinstance(found.fields, Unreadable):
            raise Problem(422, "unreadable-document", f"{name}: {found.fields}")
        fields = {"bio": "", "hard_skills": [], "soft_skills": [], "experience": []} | found.fields
        fields["experience"] = [
            {"title": one["title"], "company": one.get("company", "")} for one in fields["experience"]
        ]
        return DocumentRead.model_validate(fields | {"notes": found.notes, "removed": sorted(found.personal)})

    async def _prepared(self, applicant: Candidate, layout: Layout) -> tuple[Candidate, dict[str, FloatArray], str]:
        """The profile without personal data, unless the store keeps it, its vectors and their hash. Raises Problem."""
        if not keeps_personal_data(await self._read(self._store.meta)):
            applicant, _ = without_personal_data(applicant)
            if not says_something(applicant):
                raise Problem(422, "invalid-request", "without personal data, bio, skills and experience are all empty")
        try:
            blocks = await self._texts.profile(applicant, layout)
        except InputError as error:
            raise Problem(409, "no-encoder", f"this service cannot embed profiles: {error}") from error
        return applicant, blocks, content_hash(candidate_texts(applicant), layout)

    async def _written(self, write: Callable[[], T]) -> T:
        try:
            return await self._read(write)
        except DynaqError as error:  # a folder store allows one writer at a time
            raise Problem(503, "store-busy", str(error), retry_after=5) from error


def candidate(profile: ProfileIn, id_: str) -> Candidate:
    """A profile as a record. Raises Problem when it says nothing."""
    raw = {name: value for name, value in profile.model_dump().items() if name in ProfileIn.model_fields}
    try:
        record = parse_candidate(raw | {"id": id_}).record
    except Rejected as error:
        raise Problem(422, "invalid-request", str(error)) from error
    assert isinstance(record, Candidate)
    return record


def _read_document(name: str, data: bytes, *, keep_personal: bool) -> Document:
    """The document, read from a file in a folder of its own, which is removed again."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in DOCUMENT_SUFFIXES:
        known = ", ".join(DOCUMENT_SUFFIXES)
        return Document(Path(name), Unreadable(f"extension {suffix!r} is not one of {known}; or paste the text"))
    with tempfile.TemporaryDirectory(prefix="dynaq-document-") as folder:
        # Names of files may hold the person's name, which is then removed from the text, but no path.
        stem = "".join(letter for letter in PurePosixPath(name).stem if letter.isalnum() or letter in " _-")[:80]
        file = Path(folder) / f"{stem.strip() or 'document'}{suffix}"
        file.write_bytes(data)
        return next(read_documents(file, keep_personal=keep_personal))
