"""Which texts of a record are embedded, and embedding of records that changed.

Each block is embedded from one text. A content hash beside the vectors identifies unchanged records, so that an
interrupted or repeated run does only what is left.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache

from dynaq.encoder import PACKAGED, Embedder, Encoder, Watch
from dynaq.errors import InputError
from dynaq.languages import record_language
from dynaq.layout import LAYOUTS, Layout
from dynaq.personal.redaction import PERSONAL_DATA, REMOVED, REMOVING, STATE_KEPT, without_personal_data
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray, Kind, Store

CHUNK = 1024  # records embedded and committed together: the most that an interruption loses
CHUNK_CHARS = 16 << 20
TEXTS_KEPT = 1 << 16  # texts whose vectors are kept during a run: 100 MB at 384 dimensions

Progress = Callable[[str, int, int | None], None]
"""Called with (the current step, done so far, total if known)."""


@dataclass(frozen=True)
class Embedded:
    """How many records got vectors and how many had them already.

    personal: those of the embedded whose stored texts have personal data, which was left out.
    """

    embedded: int
    unchanged: int
    personal: int = 0


def job_texts(job: Job) -> dict[str, str]:
    """Block name -> the text that is embedded for it."""
    return {
        "technical_skills": ", ".join(job.technical_skills),
        "soft_skills": ", ".join(job.soft_skills),
        "title": job.title,
        "experience": ", ".join(job.experience_requirements),
        "description": job.description,
    }


def candidate_texts(candidate: Candidate) -> dict[str, str]:
    """Block name -> the text that is embedded for it."""
    positions = [f"{p.title} at {p.company}" if p.company else p.title for p in candidate.experience]
    return {
        "hard_skills": ", ".join(candidate.hard_skills),
        "soft_skills": ", ".join(candidate.soft_skills),
        "profile": ". ".join(part for part in (", ".join(positions), candidate.bio) if part),
    }


def content_hash(texts: Mapping[str, str], layout: Layout) -> str:
    """Layout name and 16 hex digits of a hash over all texts of a record, whether the layout embeds them or not."""
    canonical = json.dumps(texts, sort_keys=True, ensure_ascii=True)
    return f"{layout.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def is_current(stored: str | None, texts: Mapping[str, str], layout: Layout) -> bool:
    """Whether vectors with the hash `stored` hold all blocks of `layout` for these texts."""
    covering = [
        other
        for other in LAYOUTS.values()
        if set(layout.action) <= set(other.action) and set(layout.state) <= set(other.state)
    ]
    return any(stored == content_hash(texts, other) for other in covering)


def check_encoder(store: Store, encoder: Embedder) -> None:
    """Raises InputError when the store's vectors come from another encoder: cosines between the two mean nothing."""
    meta = store.meta()
    if meta.get("encoder_revision") == encoder.revision:
        return
    hashes = {hash_ for side in (store.hashes("job"), store.hashes("candidate")) for hash_ in side.values()}
    mend = f"`dynaq ingest --store {store.uri} --re-embed --encoder {encoder.name}`"
    if "encoder_revision" in meta and hashes - {""}:
        raise InputError(
            f"store {store.uri} holds vectors of encoder {meta['encoder']} ({meta['encoder_revision']}), not of "
            f"{encoder.name} ({encoder.revision}); use that encoder (`--encoder {meta['encoder']}`), or change all "
            f"vectors: {mend}"
        )
    if None in hashes:
        raise InputError(
            f"store {store.uri} holds vectors of an unknown encoder, which must not be mixed with {encoder.name}; "
            f"use another store, or make all its vectors anew: {mend}"
        )


def embed_pending(
    store: Store,
    encoder: Embedder,
    layout: Layout,
    progress: Progress | None = None,
    *,
    keep_personal: bool | None = None,
) -> dict[str, Embedded]:
    """Embed every record of the store whose vectors are missing, outdated, or lack a block of the layout.

    keep_personal: embed and judge applicants' texts with the personal data in them; None does as the store did
    before. The store remembers it for judges and for the service. Stored texts are not changed.

    Returns the counts by "jobs" and "candidates"; counts by language go into the store's meta. Raises InputError when
    the store has another encoder's vectors.
    """
    check_encoder(store, encoder)
    record_encoder(store, encoder, layout)
    before = store.meta().get(PERSONAL_DATA)
    kept = before == STATE_KEPT if keep_personal is None else keep_personal
    # Until every record was looked at, unchanged texts do not mean that vectors are without personal data.
    settled = before == REMOVED and not kept
    if not settled:
        store.put_meta(**{PERSONAL_DATA: STATE_KEPT if kept else REMOVING})
    sides = (
        _Side("job", job_texts, job_texts, True, layout.action, encoder.encode),
        _Side(
            "candidate", candidate_texts, candidate_texts if kept else _impersonal_texts, kept or settled,
            layout.state, encoder.encode_queries,
        ),
    )  # fmt: skip
    known = store.meta().get("languages", {})
    counted, languages = {}, {}
    for side in sides:
        spoken = known.get(f"{side.kind}s", {})
        counted[f"{side.kind}s"], languages[f"{side.kind}s"] = _embed(store, side, layout, encoder, spoken, progress)
    if languages != known:
        store.put_meta(languages=languages)
    if not (kept or settled):
        store.put_meta(**{PERSONAL_DATA: REMOVED})
    return counted


def record_encoder(store: Store, encoder: Embedder, layout: Layout) -> None:
    """Name the encoder in the store before its first vectors are written."""
    meta = store.meta()
    same = meta.get("encoder_revision") == encoder.revision  # so that later the model need not be loaded for it
    dimension = store.dimension() if same else encoder.dimension
    store.put_meta(encoder=encoder.name, encoder_revision=encoder.revision, dimension=dimension, layout=layout.name)


def re_embed(
    store: Store,
    encoder: Embedder,
    layout: Layout,
    progress: Progress | None = None,
    *,
    keep_personal: bool | None = None,
) -> dict[str, Embedded]:
    """Change a store's encoder: delete its vectors, embed everything again. Returns counts by "jobs" and "candidates".

    Vectors of this encoder are kept, so that an interrupted change continues where it stopped. Vectors are deleted
    before the new encoder is named: a store without vectors is consistent whichever encoder it names.
    """
    if store.meta().get("encoder_revision") != encoder.revision:
        store.clear_vectors()
    return embed_pending(store, encoder, layout, progress, keep_personal=keep_personal)


def stored_encoder(store: Store) -> str | None:
    """The packaged encoder that a store was embedded with; None if there was none, or one that is not packaged.

    For commands without an explicit encoder.
    """
    return PACKAGED.get(str(store.meta().get("encoder")))


def encoder_for(store: Store, name: str | None = None) -> Encoder:
    """The named encoder, else the store's if packaged, else the default. Raises InputError if it is not the store's."""
    encoder = Encoder(name or stored_encoder(store))
    check_encoder(store, encoder)
    return encoder


class _EncodeOnce:
    """Wraps an encoder's method: a text that several records of a run share is encoded once."""

    def __init__(self, encode: Callable[[list[str]], FloatArray]) -> None:
        self._encode = encode
        self._known: LRUCache[str, FloatArray] = LRUCache(TEXTS_KEPT)

    def __call__(self, texts: list[str]) -> FloatArray:
        """`[len(texts), dimension]`."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        fresh = dict(zip(new, self._encode(new), strict=True)) if new else {}
        vectors = np.stack([fresh[text] if text in fresh else self._known[text] for text in texts])
        for text, vector in fresh.items():
            self._known[text] = vector.copy()
        return vectors


@dataclass(frozen=True)
class _Side:
    """How one kind of record is embedded.

    Args:
        kind: of the records.
        texts: a record's texts as they are stored.
        embedded: those that are embedded.
        settled: whether a record with up-to-date vectors of its stored texts needs no second look.
        blocks: of the layout.
        encode: the encoder's method.
    """

    kind: Kind
    texts: Callable[[Any], dict[str, str]]
    embedded: Callable[[Any], dict[str, str]]
    settled: bool
    blocks: tuple[str, ...]
    encode: Callable[[list[str]], FloatArray]


def _embed(
    store: Store,
    side: _Side,
    layout: Layout,
    encoder: Embedder,
    languages: Mapping[str, int],
    progress: Progress | None,
) -> tuple[Embedded, dict[str, int]]:
    """Embed the records whose vectors are not up to date.

    languages: number of records by language before. Returns the counts, and the number of records by language now.
    """
    known, ids = store.hashes(side.kind), store.ids(side.kind)
    encode = _EncodeOnce(side.encode)
    embedded = unchanged = personal = 0
    counts = Counter(languages)
    # New records only add to the counts. After a change or an interrupted run, all records are counted again.
    exact = counts.total() == len(known.keys() & set(ids))
    for chunk in _chunks((record, side.texts(record)) for record in store.records(side.kind)):
        # Chunks are cut before unchanged records are dropped, so that a repeated run has the batches of the first.
        pending = [
            (record.id, texts, stored)
            for record, stored in chunk
            if (texts := _outdated(side, record, stored, known.get(record.id), layout)) is not None
        ]
        if pending:
            encoder.watch = _watch(side, embedded + unchanged, len(pending), len(ids), progress)
            vectors = encode([texts[block] for block in side.blocks for _, texts, _ in pending])
            split = vectors.reshape(len(side.blocks), len(pending), -1)
            hashes = [content_hash(texts, layout) for _, texts, _ in pending]
            blocks = dict(zip(side.blocks, split, strict=True))
            store.put_vectors(side.kind, [id_ for id_, _, _ in pending], blocks, hashes)
            exact = exact and not any(id_ in known for id_, _, _ in pending)
            if exact:
                counts.update(record_language(stored) for _, _, stored in pending)
            personal += sum(texts != stored for _, texts, stored in pending)
        embedded += len(pending)
        unchanged += len(chunk) - len(pending)
        if progress is not None:
            progress(f"embedding {side.kind}s", embedded + unchanged, len(ids))
    if not exact:
        counts = Counter(record_language(side.texts(record)) for record in store.records(side.kind))
    return Embedded(embedded, unchanged, personal), dict(sorted(counts.items()))


def _outdated(
    side: _Side, record: Any, stored: dict[str, str], known: str | None, layout: Layout
) -> dict[str, str] | None:
    """The texts to embed of a record with these stored texts; None if its vectors, of hash `known`, are up to date."""
    if side.settled and is_current(known, stored, layout):
        return None
    texts = side.embedded(record)
    return None if is_current(known, texts, layout) else texts


def _impersonal_texts(candidate: Candidate) -> dict[str, str]:
    return candidate_texts(without_personal_data(candidate)[0])


def _watch(side: _Side, before: int, pending: int, total: int, progress: Progress | None) -> Watch | None:
    """Reports progress within a chunk, since one of long texts takes minutes."""
    if progress is None:
        return None
    return lambda share: progress(f"embedding {side.kind}s", before + int(share * pending), total)


def _chunks(items: Iterable[tuple[Any, dict[str, str]]]) -> Iterator[list[tuple[Any, dict[str, str]]]]:
    chunk: list[tuple[Any, dict[str, str]]] = []
    chars = 0
    for item in items:
        chunk.append(item)
        chars += sum(map(len, item[1].values()))
        if len(chunk) >= CHUNK or chars >= CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk
