"""Exact and near duplicates among the records of one run.

Near duplicates are found with MinHash over three-word shingles and locality-sensitive hashing (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), so that each posting is compared with only a few others.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from dynaq.ingest.embedding import candidate_texts, job_texts
from dynaq.records import Candidate, Job

Similarity = Literal["exact", "near"]

THRESHOLD = 0.85  # least estimated Jaccard similarity of near duplicates
PERMUTATIONS = 64
MIN_RUNS = 20  # shorter texts are similar by chance: "Nurse, Ward 1" and "Nurse, Ward 2" are two jobs
MAX_WORDS = 1500  # the beginning distinguishes postings; the rest is about the company


@dataclass
class Duplicates:
    """Finds, for each record in turn, an earlier duplicate.

    Args:
        near: look for near duplicates too; not for applicants, since similar profiles may belong to different ones.
    """

    near: bool
    _exact: dict[bytes, str] = field(default_factory=dict)
    _index: Any = None

    def find(self, record: Job | Candidate) -> tuple[str, Similarity] | None:
        """(id of the earlier record, how similar), or None; then the record is remembered for later ones."""
        texts = job_texts(record) if isinstance(record, Job) else candidate_texts(record)
        words = re.findall(r"\w+", " \n ".join(texts.values()).casefold())[:MAX_WORDS]
        key = blake2b(re.sub(r"\s+", " ", "\0".join(texts.values()).casefold()).encode("utf-8", "replace")).digest()
        if (first := self._exact.get(key)) is not None:
            return first, "exact"
        self._exact[key] = record.id
        runs = {" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)}
        if not self.near or len(runs) < MIN_RUNS:
            return None
        return self._nearly(record.id, runs)

    def _nearly(self, id_: str, runs: set[bytes]) -> tuple[str, Similarity] | None:
        # Imported here: it imports scipy, which short records do not need.
        from datasketch import MinHash, MinHashLSH

        if self._index is None:
            blank = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
            self._index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), {}, blank
        lsh, signatures, blank = self._index
        signature = blank.copy()  # drawing the permutations again would take as long as all the rest
        signature.update_batch(runs)
        alike = [(signature.jaccard(signatures[other]), other) for other in lsh.query(signature)]
        similarity, first = max(alike, default=(0.0, ""))
        if similarity >= THRESHOLD:
            return first, "near"
        signatures[id_] = signature
        lsh.insert(id_, signature, check_duplication=False)
        return None
