"""Ingestion: input files or a market into a store, and embedding of what is new or changed there."""

from __future__ import annotations

from dynaq.ingest.columns import parse_mappings
from dynaq.ingest.embedding import Progress, embed_pending, re_embed
from dynaq.ingest.event_logs import EventReport, ingest_events
from dynaq.ingest.record_reader import InputOptions
from dynaq.ingest.report import Counts, IngestReport, NothingAccepted, Rejection
from dynaq.ingest.run import ingest_files, ingest_market, require_records

__all__ = [
    "Counts",
    "EventReport",
    "IngestReport",
    "InputOptions",
    "NothingAccepted",
    "Progress",
    "Rejection",
    "embed_pending",
    "ingest_events",
    "ingest_files",
    "ingest_market",
    "parse_mappings",
    "re_embed",
    "require_records",
]
