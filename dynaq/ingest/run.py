"""The two entry points: files into a store, a market into a store."""

from __future__ import annotations

from dataclasses import dataclass

from dynaq.encoder import Embedder, Encoder
from dynaq.ingest.embedding import Embedded, Progress, embed_pending
from dynaq.layout import Layout, get_layout
from dynaq.markets import Market
from dynaq.stores import Store


@dataclass(frozen=True)
class Counts:
    """What happened to one kind of record."""

    accepted: int = 0
    rejected: int = 0
    embedded: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class IngestReport:
    """Counts for both kinds of record."""

    jobs: Counts
    candidates: Counts


def ingest_market(
    store: Store,
    market: Market,
    *,
    encoder: Embedder | None = None,
    layout: str | Layout | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Write a market's records, relevance and attribution, and embed what is new or changed."""
    store.put_jobs(market.jobs)
    store.put_candidates(market.candidates)
    store.put_qrels(market.qrels)
    store.put_meta(attribution=market.attribution)
    embedded = embed_pending(store, encoder or Encoder(), resolve_layout(store, layout), progress)
    return IngestReport(
        _counts(len(market.jobs), embedded["jobs"]), _counts(len(market.candidates), embedded["candidates"])
    )


def resolve_layout(store: Store, layout: str | Layout | None) -> Layout:
    """The layout asked for, else the one the store was embedded with, else extended."""
    if layout is None:
        layout = str(store.meta().get("layout", "extended"))
    return get_layout(layout) if isinstance(layout, str) else layout


def _counts(accepted: int, embedded: Embedded, rejected: int = 0) -> Counts:
    return Counts(accepted, rejected, embedded.embedded, embedded.unchanged)
