"""What of a record is embedded, and embedding what changed.

Each block's text is one text. A content hash beside the vectors tells what is unchanged, so that an interrupted or
repeated run does only what is left.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynaq.encoder import PACKAGED, Embedder, Encoder, Watch
from dynaq.errors import InputError
from dynaq.languages import record_language
from dynaq.layout import LAYOUTS, Layout
from dynaq.records import Candidate, Job
from dynaq.stores import FloatArray, Kind, Store

CHUNK = 1024  # records embedded and committed together: what an interruption loses at most
CHUNK_CHARS = 16 << 20
REMEMBERED = 1 << 16  # texts whose vectors are kept while a run lasts: 100 MB at 384 numbers

Progress = Callable[[str, int, int | None], None]
"""Called with (what is going on, done so far, out of how many if known)."""


@dataclass(frozen=True)
class Embedded:
    """How many records got vectors and how many had them already."""

    embedded: int
    unchanged: int


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
    """Layout name and 16 hex digits over all texts of a record, embedded by this layout or not."""
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
    """Raises InputError when the store's vectors come from another encoder: their cosines would mean nothing."""
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
    store: Store, encoder: Embedder, layout: Layout, progress: Progress | None = None
) -> dict[str, Embedded]:
    """Embed every record of the store whose vectors are missing, old, or lack a block of the layout.

    Returns the counts by "jobs" and "candidates"; the store's meta gets those by language. Raises InputError when the
    store has another encoder's vectors.
    """
    check_encoder(store, encoder)
    record_encoder(store, encoder, layout)
    sides = (
        _Side("job", job_texts, layout.action, encoder.encode),
        _Side("candidate", candidate_texts, layout.state, encoder.encode_queries),
    )
    known = store.meta().get("languages", {})
    counted, languages = {}, {}
    for side in sides:
        before = known.get(f"{side.kind}s", {})
        counted[f"{side.kind}s"], languages[f"{side.kind}s"] = _embed(store, side, layout, encoder, before, progress)
    if languages != known:
        store.put_meta(languages=languages)
    return counted


def record_encoder(store: Store, encoder: Embedder, layout: Layout) -> None:
    """Say in the store whose vectors it holds, before it holds any."""
    meta = store.meta()
    same = meta.get("encoder_revision") == encoder.revision  # then the model need not be loaded to ask it
    dimension = store.dimension() if same else encoder.dimension
    store.put_meta(encoder=encoder.name, encoder_revision=encoder.revision, dimension=dimension, layout=layout.name)


def re_embed(store: Store, encoder: Embedder, layout: Layout, progress: Progress | None = None) -> dict[str, Embedded]:
    """Change a store's encoder: its vectors go and all are made anew. Returns the counts by "jobs" and "candidates".

    Vectors of this very encoder stay, so that an interrupted change goes on where it was. The vectors go before the
    new encoder is named: a store without vectors is right whichever it names.
    """
    if store.meta().get("encoder_revision") != encoder.revision:
        store.clear_vectors()
    return embed_pending(store, encoder, layout, progress)


def stored_encoder(store: Store) -> str | None:
    """The name of the packaged encoder that a store was embedded with; None for none, or for one that is no package's.

    For a command that was not told an encoder.
    """
    return PACKAGED.get(str(store.meta().get("encoder")))


def encoder_for(store: Store, name: str | None = None) -> Encoder:
    """The encoder named, else the store's where a package has it, else the default. Raises InputError for the wrong."""
    encoder = Encoder(name or stored_encoder(store))
    check_encoder(store, encoder)
    return encoder


class _Remembering:
    """An encoder's method that encodes a text once, however many of a run's records have it."""

    def __init__(self, encode: Callable[[list[str]], FloatArray]) -> None:
        self._encode = encode
        self._known: dict[str, FloatArray] = {}

    def __call__(self, texts: list[str]) -> FloatArray:
        """`[len(texts), dimension]`."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        fresh = dict(zip(new, self._encode(new), strict=True)) if new else {}
        vectors = np.stack([fresh[text] if text in fresh else self._known[text] for text in texts])
        for text, vector in fresh.items():
            if len(self._known) >= REMEMBERED:
                break
            self._known[text] = vector.copy()
        return vectors


@dataclass(frozen=True)
class _Side:
    """How one kind of record is embedded: what of it, which blocks, by which method of the encoder."""

    kind: Kind
    texts: Callable[[Any], dict[str, str]]
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
    """Embed the records that are not up to date in the store.

    Returns the counts, and how many records there are by language; `languages`: how many there were before.
    """
    known, ids = store.hashes(side.kind), store.ids(side.kind)
    encode = _Remembering(side.encode)
    embedded = unchanged = 0
    counts = Counter(languages)
    # New records are added to the counts. Once others changed, or a run was interrupted, all are counted again.
    exact = counts.total() == len(known.keys() & set(ids))
    for chunk in _chunks((record.id, side.texts(record)) for record in store.records(side.kind)):
        # Chunks are cut before the unchanged are left out: a repeated run makes the batches of the first.
        pending = [(id_, texts) for id_, texts in chunk if not is_current(known.get(id_), texts, layout)]
        if pending:
            encoder.watch = _watch(side, embedded + unchanged, len(pending), len(ids), progress)
            vectors = encode([texts[block] for block in side.blocks for _, texts in pending])
            split = vectors.reshape(len(side.blocks), len(pending), -1)
            hashes = [content_hash(texts, layout) for _, texts in pending]
            blocks = dict(zip(side.blocks, split, strict=True))
            store.put_vectors(side.kind, [id_ for id_, _ in pending], blocks, hashes)
            exact = exact and not any(id_ in known for id_, _ in pending)
            if exact:
                counts.update(record_language(texts) for _, texts in pending)
        embedded += len(pending)
        unchanged += len(chunk) - len(pending)
        if progress is not None:
            progress(f"embedding {side.kind}s", embedded + unchanged, len(ids))
    if not exact:
        counts = Counter(record_language(side.texts(record)) for record in store.records(side.kind))
    return Embedded(embedded, unchanged), dict(sorted(counts.items()))


def _watch(side: _Side, before: int, pending: int, total: int, progress: Progress | None) -> Watch | None:
    """Says how far a chunk is: one of long texts takes minutes."""
    if progress is None:
        return None
    return lambda share: progress(f"embedding {side.kind}s", before + int(share * pending), total)


def _chunks(items: Iterable[tuple[str, dict[str, str]]]) -> Iterator[list[tuple[str, dict[str, str]]]]:
    chunk: list[tuple[str, dict[str, str]]] = []
    chars = 0
    for item in items:
        chunk.append(item)
        chars += sum(map(len, item[1].values()))
        if len(chunk) >= CHUNK or chars >= CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk
