"""What of a record is embedded, and embedding what changed.

Each block's text is one text. A content hash beside the vectors tells what is unchanged, so that an interrupted or
repeated run does only what is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from dynaq.encoder import Embedder
from dynaq.errors import InputError
from dynaq.layout import BLOCK_DIM, LAYOUTS, Layout
from dynaq.records import Candidate, Job
from dynaq.stores import Kind, Store

CHUNK = 1024  # records embedded and committed together: what an interruption loses at most
CHUNK_CHARS = 16 << 20

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
    if "encoder_revision" in meta:
        if meta["encoder_revision"] != encoder.revision:
            raise InputError(
                f"store {store.uri} holds vectors of encoder {meta['encoder']} ({meta['encoder_revision']}), not of "
                f"{encoder.name} ({encoder.revision}); use that encoder, or another store for this one"
            )
    elif any(value is None for hashes in (store.hashes("job"), store.hashes("candidate")) for value in hashes.values()):
        raise InputError(
            f"store {store.uri} holds vectors of an unknown encoder, which must not be mixed with {encoder.name}; "
            "use another store, or remove the embeddings so that all are made anew"
        )


def embed_pending(
    store: Store, encoder: Embedder, layout: Layout, progress: Progress | None = None
) -> dict[str, Embedded]:
    """Embed every record of the store whose vectors are missing, old, or lack a block of the layout.

    Returns the counts by "jobs" and "candidates". Raises InputError when the store has another encoder's vectors.
    """
    check_encoder(store, encoder)
    store.put_meta(encoder=encoder.name, encoder_revision=encoder.revision, layout=layout.name)
    jobs = ((job.id, job_texts(job)) for job in store.records("job"))
    candidates = ((candidate.id, candidate_texts(candidate)) for candidate in store.records("candidate"))
    return {
        "jobs": _embed(store, "job", jobs, layout, encoder, progress),
        "candidates": _embed(store, "candidate", candidates, layout, encoder, progress),
    }


def _embed(
    store: Store,
    kind: Kind,
    records: Iterable[tuple[str, dict[str, str]]],
    layout: Layout,
    encoder: Embedder,
    progress: Progress | None,
) -> Embedded:
    """Embed those of `records` (id, block name -> text) that are not up to date in the store."""
    blocks = layout.action if kind == "job" else layout.state
    known, total = store.hashes(kind), len(store.ids(kind))
    embedded = unchanged = 0
    for chunk in _chunks(records):
        # Chunks are cut before the unchanged are left out: a repeated run makes the batches of the first.
        pending = [(id_, texts) for id_, texts in chunk if not is_current(known.get(id_), texts, layout)]
        if pending:
            vectors = encoder.encode([texts[block] for block in blocks for _, texts in pending])
            split = vectors.reshape(len(blocks), len(pending), BLOCK_DIM)
            hashes = [content_hash(texts, layout) for _, texts in pending]
            store.put_vectors(kind, [id_ for id_, _ in pending], dict(zip(blocks, split, strict=True)), hashes)
        embedded += len(pending)
        unchanged += len(chunk) - len(pending)
        if progress is not None:
            progress(f"embedding {kind}s", embedded + unchanged, total)
    return Embedded(embedded, unchanged)


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
