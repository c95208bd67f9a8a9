"""Embedding as a person sees it: with a bar, and the languages that the encoder does not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.embedding import parallel_encoder
from dynaq.encoder import Embedder
from dynaq.ingest import Progress, re_embed
from dynaq.ingest.embedding import stored_encoder
from dynaq.ingest.run import resolve_layout
from dynaq.languages import READS, reading, spelled, total, unread
from dynaq.stores import Store, open_store
from jobs.terminal.console import Bars, say


@contextmanager
def embedding_with(store: Store, name: str | None) -> Iterator[tuple[Embedder, Progress]]:
    """The encoder named, else the store's, else the default, and what shows how far it is."""
    with Bars(remaining=True) as bars, parallel_encoder(name or stored_encoder(store)) as embedder:

        def progress(what: str, done: int, total: int | None) -> None:
            bars.update(what, done, total or done)

        yield embedder, progress


def change_encoder(uri: str, encoder: str | None, layout: str | None) -> None:
    """All vectors of a store anew. Raises InputError when there is no such store or encoder."""
    with open_store(uri) as store:
        before = store.meta().get("encoder_revision")
        with embedding_with(store, encoder) as (embedder, progress):
            counts = re_embed(store, embedder, resolve_layout(store, layout), progress)
        lines, dimension = language_lines(store), store.dimension()
        shown, changed = store.uri, before != embedder.revision
    for kind, count in counts.items():
        say(f"{kind}: {count.embedded} embedded, {count.unchanged} had their vectors of {embedder.name}")
    for line in lines:
        say(line)
    if changed:
        say("agents and pre-trained networks of before do not fit the new vectors; train anew")
    say(f"store: {shown}, vectors of {dimension} numbers by {embedder.name}")


def language_lines(store: Store) -> list[str]:
    """In which languages a store's records are, and what to do where its encoder does not read them."""
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
