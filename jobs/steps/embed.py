"""Embedding with a progress bar, and warnings about languages that the encoder does not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.embedding import parallel_encoder
from dynaq.encoder import Embedder
from dynaq.ingest import Progress, re_embed
from dynaq.ingest.embedding import stored_encoder
from dynaq.ingest.report import impersonal_note
from dynaq.ingest.run import resolve_layout
from dynaq.languages import READS, reading, spelled, total, unread
from dynaq.stores import Store, open_store
from jobs.terminal.console import Bars, say


@contextmanager
def embedding_with(store: Store, name: str | None) -> Iterator[tuple[Embedder, Progress]]:
    """The named encoder, else the store's, else the default, and the function that shows its progress."""
    with Bars(remaining=True) as bars, parallel_encoder(name or stored_encoder(store)) as embedder:
        yield embedder, bars.update


def change_encoder(uri: str, encoder: str | None, layout: str | None, keep_personal: bool | None) -> None:
    """Embed a whole store again, as `embed_pending` does. Raises InputError when there is no such store or encoder."""
    with open_store(uri) as store:
        before = store.meta().get("encoder_revision")
        with embedding_with(store, encoder) as (embedder, progress):
            counts = re_embed(store, embedder, resolve_layout(store, layout), progress, keep_personal=keep_personal)
        lines, dimension = language_lines(store), store.dimension()
        shown, changed = store.uri, before != embedder.revision
    for kind, count in counts.items():
        say(f"{kind}: {count.embedded} embedded, {count.unchanged} had their vectors of {embedder.name}")
    if people := counts["candidates"].personal:
        say(impersonal_note(people))
    for line in lines:
        say(line)
    if changed:
        say("agents and pre-trained networks of before do not fit the new vectors; train anew")
    say(f"store: {shown}, vectors of {dimension} numbers by {embedder.name}")


def language_lines(store: Store) -> list[str]:
    """The languages of a store's records, and what to do about those that its encoder does not read."""
    meta = store.meta()
    counts, encoder = meta.get("languages", {}), str(meta.get("encoder"))
    if not any(counts.values()):
        return []
    lines = ["languages: " + "; ".join(f"{kind} {spelled(by)}" for kind, by in counts.items() if by)]
    strange = unread(total(counts.values()), encoder)
    if strange:
        lines.append(
            f"{sum(strange.values())} records are in a language that encoder {encoder} does not read "
            f"({spelled(strange)}; it reads {reading(encoder)}), so they are matched badly; take the multilingual one: "
            f"`dynaq ingest --store {store.uri} --re-embed --encoder multilingual`"
        )
    elif encoder not in READS and total(counts.values()).keys() - {"en", "und"}:
        lines.append(f"whether encoder {encoder} reads these languages is not known here; see its description")
    return lines
