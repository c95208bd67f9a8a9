"""Exact and near duplicates among the records of one run, and of those that the store has.

Near duplicates are found with MinHash over three-word shingles and locality-sensitive hashing (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), so that each posting is compared with only a few others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from dynaq.ingest.embedding import candidate_texts, job_texts
from dynaq.records import Candidate, Job

Similarity = Literal["exact", "near"]

THRESHOLD = 0.85  # least estimated Jaccard similarity of near duplicates
PERMUTATIONS = 64
MIN_RUNS = 20  # shorter texts are similar by chance: "Nurse, Ward 1" and "Nurse, Ward 2" are two jobs
NEAR_STORED = 20_000  # records of the store that are looked at for near duplicates: some 100 MB
MAX_WORDS = 1500  # the beginning distinguishes postings; the rest is about the company


@dataclass
class Duplicates:
    """Finds, for each record in turn, an earlier duplicate.

    Args:
        near: look for near duplicates too; not for applicants, since similar profiles may belong to different ones.
        stored: reads the records of a store, which count as earlier ones; called before the first comparison.
    """

    near: bool
    stored: Callable[[], Iterable[Job | Candidate]] | None = None
    _exact: dict[bytes, str] = field(default_factory=dict)
    _index: Any = None

    def find(self, record: Job | Candidate) -> tuple[str, Similarity] | None:
        """(id of the earlier record, how similar), or None; then the record is remembered for later ones.

        A record of the same id is the same record, not a duplicate of it.
        """
        if self.stored is not None:
            stored, self.stored = self.stored(), None
            for number, earlier in enumerate(stored):
                if not (isinstance(earlier, Job) and "duplicate_of" in earlier.metadata):
                    self._find(earlier, near=self.near and number < NEAR_STORED)
        return self._find(record, near=self.near)

    def _find(self, record: Job | Candidate, *, near: bool) -> tuple[str, Similarity] | None:
        texts = job_texts(record) if isinstance(record, Job) else candidate_texts(record)
        content = re.sub(r"\s+", " ", "\0".join(texts.values()).casefold()).encode("utf-8", "replace")
        key = blake2b(content, digest_size=16).digest()
        if (first := self._exact.get(key)) is not None:
            return None if first == record.id else (first, "exact")
        self._exact[key] = record.id
        if not near:
            return None
        words = re.findall(r"\w+", " \n ".join(texts.values()).casefold())[:MAX_WORDS]
        runs = {" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)}
        return self._nearly(record.id, runs) if len(runs) >= MIN_RUNS else None

    def _nearly(self, id_: str, runs: set[bytes]) -> tuple[str, Similarity] | None:
        # Imported here: it imports scipy, which short records do not need.
        from datasketch import MinHash, MinHashLSH

        if self._index is None:
            blank = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
            self._index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), {}, blank
        lsh, signatures, blank = self._index
        signature = blank.copy()  # drawing the permutations again would take as long as all the rest
        signature.update_batch(runs)
        if id_ in signatures:  # a stored record that is read again, and has changed
            lsh.remove(id_)
            del signatures[id_]
        alike = [(signature.jaccard(signatures[other]), other) for other in lsh.query(signature)]
        similarity, first = max(alike, default=(0.0, ""))
        if similarity >= THRESHOLD:
            return first, "near"
        signatures[id_] = signature
        lsh.insert(id_, signature, check_duplication=False)
        return None
