"""Ingestion: input files or a market into a store, and embedding of what is new or changed there."""

from __future__ import annotations

from dynaq.ingest.embedding import Progress, embed_pending
from dynaq.ingest.run import Counts, IngestReport, Rejection, ingest_files, ingest_market

__all__ = ["Counts", "IngestReport", "Progress", "Rejection", "embed_pending", "ingest_files", "ingest_market"]
