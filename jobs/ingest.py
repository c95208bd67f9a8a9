"""dynaq ingest: jobs and candidates from files into a store, with their vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.embedding import parallel_encoder
from dynaq.errors import InputError
from dynaq.ingest import Counts, IngestReport, ingest_files, ingest_market
from dynaq.markets import onet_market
from dynaq.stores import open_store
from jobs.cli import run_verb
from jobs.terminal.console import Bars, say


def main(
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI; made when it is not there")],
    jobs: Annotated[list[str] | None, typer.Option(help="files: .jsonl, .csv, .parquet, .xlsx")] = None,
    candidates: Annotated[list[str] | None, typer.Option(help="files: .jsonl, .csv, .parquet, .xlsx")] = None,
    encoder: Annotated[str | None, typer.Option(help="sentence-transformers model; default: the packaged one")] = None,
    layout: Annotated[str | None, typer.Option(help="classic or extended; default: the store's, else extended")] = None,
    onet: Annotated[str | None, typer.Option(help="folder of O*NET tables (Parquet, or text as published)")] = None,
    applicants: Annotated[int, typer.Option(help="size of the cohort made from O*NET")] = 32,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="read and check the files only; write nothing")] = False,
) -> None:
    """Read files, or a market made from O*NET, into a store and embed what is new or changed."""
    if not (jobs or candidates or onet):
        raise InputError("nothing to ingest; name files with --jobs or --candidates, or O*NET's tables with --onet")
    if onet and (jobs or candidates):
        raise InputError("--onet makes a market of its own; ingest files in a run of their own")
    if dry_run:
        _dry_run(jobs or [], candidates or [], onet, applicants)
        return
    market = onet_market(onet, applicants=applicants) if onet else None
    with open_store(store, create=True) as opened, Bars() as bars, parallel_encoder(encoder) as embedder:

        def progress(what: str, done: int, total: int | None) -> None:
            bars.update(what, done, total or done)

        if market is not None:
            report = ingest_market(opened, market, encoder=embedder, layout=layout, progress=progress)
        else:
            report = ingest_files(
                opened,
                jobs=jobs or (),
                candidates=candidates or (),
                encoder=embedder,
                layout=layout,
                progress=progress,
            )
        shown = opened.uri
    _say(report)
    if market is not None:
        say(market.attribution)
    say(f"store: {shown}")


def _dry_run(jobs: list[str], candidates: list[str], onet: str | None, applicants: int) -> None:
    if onet:
        market = onet_market(onet, applicants=applicants)
        say(f"would write {len(market.jobs)} jobs, {len(market.candidates)} candidates, {len(market.qrels)} grades")
    else:
        report = ingest_files(None, jobs=jobs, candidates=candidates, dry_run=True)
        _say(report)
        for rejection in report.rejections:
            say(f"{rejection.file} line {rejection.line}: {rejection.reason}")
    say("nothing was written")


def _say(report: IngestReport) -> None:
    for name, counts in (("jobs", report.jobs), ("candidates", report.candidates)):
        if counts != Counts():
            say(f"{name}: {_counts(counts)}")
    for path in report.rejected_files:
        say(f"rejected records are listed in {path}")


def _counts(counts: Counts) -> str:
    return (
        f"{counts.accepted} accepted, {counts.rejected} rejected; "
        f"{counts.embedded} embedded, {counts.unchanged} had their vectors"
    )


if __name__ == "__main__":
    run_verb("ingest")
