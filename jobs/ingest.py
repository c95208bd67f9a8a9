"""dynaq ingest: jobs and candidates from files into a store, with their vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from dynaq.encoder import Encoder
from dynaq.errors import InputError
from dynaq.ingest import Counts, ingest_files
from dynaq.stores import open_store
from jobs.cli import run_verb
from jobs.console import Bars, say


def main(
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI; made when it is not there")],
    jobs: Annotated[list[str] | None, typer.Option(help="files: .jsonl, .csv, .parquet, .xlsx")] = None,
    candidates: Annotated[list[str] | None, typer.Option(help="files: .jsonl, .csv, .parquet, .xlsx")] = None,
    encoder: Annotated[str | None, typer.Option(help="sentence-transformers model; default: the packaged one")] = None,
    layout: Annotated[str | None, typer.Option(help="classic or extended; default: the store's, else extended")] = None,
) -> None:
    """Read files into a store and embed what is new or changed."""
    if not jobs and not candidates:
        raise InputError("nothing to ingest; name files with --jobs or --candidates")
    with open_store(store, create=True) as opened, Bars() as bars:
        report = ingest_files(
            opened,
            jobs=jobs or (),
            candidates=candidates or (),
            encoder=Encoder(encoder),
            layout=layout,
            progress=lambda what, done, total: bars.update(what, done, total or done),
        )
        shown = opened.uri
    if jobs:
        say(f"jobs: {_counts(report.jobs)}")
    if candidates:
        say(f"candidates: {_counts(report.candidates)}")
    for path in report.rejected_files:
        say(f"rejected records are listed in {path}")
    say(f"store: {shown}")


def _counts(counts: Counts) -> str:
    return (
        f"{counts.accepted} accepted, {counts.rejected} rejected; "
        f"{counts.embedded} embedded, {counts.unchanged} had their vectors"
    )


if __name__ == "__main__":
    run_verb("ingest")
