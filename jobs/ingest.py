"""dynaq ingest: jobs and candidates from files into a store, with their vectors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dynaq.encoder import Encoder
from dynaq.errors import InputError
from dynaq.ingest import (
    Counts,
    EventReport,
    IngestReport,
    InputOptions,
    NothingAccepted,
    ingest_events,
    ingest_files,
    ingest_market,
    parse_mappings,
    require_records,
)
from dynaq.ingest.documents import is_document
from dynaq.ingest.event_logs import NoEventAccepted
from dynaq.ingest.report import RejectionGroup
from dynaq.markets import Market, onet_market
from dynaq.stores import Store, open_feedback, open_store
from dynaq.stores.segments import STORE_FILE
from jobs.cli import run_verb
from jobs.steps.embed import change_encoder, embedding_with, language_lines
from jobs.steps.options import LayoutName
from jobs.terminal.console import say
from reward_service.costs import usage_line
from reward_service.document_endpoint import DocumentEndpoint, check_url

SHOWN_GROUPS = 6
ENCODER_HELP = (
    "multilingual, the folder of a sentence-transformers model, or one in the Hugging Face cache; "
    "default: the store's, else all-MiniLM-L6-v2, which reads English"
)
RESUME_HELP = (
    "URL#MODEL of an OpenAI-compatible server that finds the fields of documents in place of our rules; "
    "its key is read from $DYNAQ_ENDPOINT_KEY"
)
_TABLES = ".jsonl, .json, .csv, .tsv, .parquet, .xlsx, each also as .gz"


def main(
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI; made when it is not there")],
    jobs: Annotated[list[str] | None, typer.Option(help=f"files: {_TABLES}")] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(help="files as for --jobs; folders or files of .pdf, .docx, .txt, .html, one person each"),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(help="logs of what applicants did (applicant, job, event, time): files as for --jobs, alone"),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="which column is which field: title=job_title,description=text; jobs.id=… for one kind"
        ),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="of text files; default: told from the bytes")] = None,
    delimiter: Annotated[str | None, typer.Option(help="of .csv and .tsv; default: told from the rows")] = None,
    sheet: Annotated[str | None, typer.Option(help="of .xlsx; default: the first that looks like the table")] = None,
    duplicates: Annotated[
        Literal["keep", "drop"], typer.Option(help="keep records that say the same, linked, or drop them")
    ] = "keep",
    limit: Annotated[
        int | None, typer.Option(min=1, help="read so many records of each kind, for a first look")
    ] = None,
    keep_personal: Annotated[
        bool | None,
        typer.Option(
            "--keep-personal/--remove-personal",
            help="whether people's names, addresses and the like stay in their texts; default: as the store was "
            "told before, else they are removed",
        ),
    ] = None,
    resume_endpoint: Annotated[str | None, typer.Option(help=RESUME_HELP)] = None,
    encoder: Annotated[str | None, typer.Option(help=ENCODER_HELP)] = None,
    layout: Annotated[
        LayoutName | None, typer.Option(help="of the vectors; default: the store's, else extended")
    ] = None,
    onet: Annotated[str | None, typer.Option(help="folder of O*NET tables (Parquet, or text as published)")] = None,
    applicants: Annotated[int, typer.Option(help="size of the cohort made from O*NET")] = 32,
    re_embed: Annotated[bool, typer.Option("--re-embed", help="make all vectors anew, with --encoder")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="read and check the files only; write nothing")] = False,
) -> None:
    """Read files, or a market made from O*NET, into a store and embed what is new or changed.

    Without files, the records that are already in the store are embedded, such as those of a database filled by hand.
    """
    named = Encoder(encoder) if encoder else None  # a wrong name ends here, before a store is made
    if resume_endpoint:
        if re_embed or not any(is_document(Path(path)) for path in candidates or ()):
            raise InputError("--resume-endpoint reads documents, and --candidates names none")
        check_url(resume_endpoint)
    if re_embed:
        if jobs or candidates or events or onet or dry_run:
            raise InputError(
                "--re-embed changes the vectors of what the store holds; ingest files in a run of their own"
            )
        change_encoder(store, encoder, layout, keep_personal)
        return
    there = _is_there(store)
    if events:
        if jobs or candidates or onet:
            raise InputError("--events is about applicants and jobs of the store; ingest these in a run before it")
        mappings = parse_mappings(map_ or [], events=True)
        _ingest_events(store, events, InputOptions(mappings, encoding, delimiter, sheet, limit=limit), dry_run)
        return
    if not (jobs or candidates or onet or there):
        raise InputError("nothing to ingest; name files with --jobs or --candidates, or O*NET's tables with --onet")
    if onet and (jobs or candidates):
        raise InputError("--onet makes a market of its own; ingest files in a run of their own")
    options = InputOptions(
        parse_mappings(map_ or [], jobs=bool(jobs), candidates=bool(candidates)),
        encoding, delimiter, sheet, duplicates, limit, keep_personal,
    )  # fmt: skip
    files: dict[str, Any] = {"jobs": jobs or (), "candidates": candidates or ()}
    if dry_run:
        if onet:
            _dry_run_market(onet, applicants)
        else:
            _dry_run_files(store if there else None, files, options, named)
            if resume_endpoint:
                say("a dry run asks no endpoint; the documents were read by the rules")
        say("nothing was written")
        return
    market = onet_market(onet, applicants=applicants) if onet else None
    if market is None and not there:
        _explained(require_records, **files, encoder=named, options=options)
    with _reading_at(resume_endpoint) as resume_model:
        _ingest(store, files, options, market, encoder, layout, resume_model)


def _ingest(
    store: str,
    files: dict[str, Any],
    options: InputOptions,
    market: Market | None,
    encoder: str | None,
    layout: str | None,
    resume_model: DocumentEndpoint | None,
) -> None:
    """Ingest files or a market into the store, and print the outcome."""
    with _made_or_removed(store) as opened, embedding_with(opened, encoder) as (embedder, progress):
        if market is not None:
            report = ingest_market(opened, market, encoder=embedder, layout=layout, progress=progress)
        else:
            report = _explained(
                ingest_files,
                opened,
                **files,
                encoder=embedder,
                layout=layout,
                options=options,
                progress=progress,
                resume_model=resume_model,
            )
        shown, languages = opened.uri, language_lines(opened)
    _say(report)
    for line in languages:
        say(line)
    if market is not None:
        say(market.attribution)
    say(f"store: {shown}")


def _ingest_events(store: str, files: list[str], options: InputOptions, dry_run: bool) -> None:
    """Add logs of events to the store's feedback, and print the outcome."""
    with open_store(store, read_only=True) as opened:
        applicants, jobs = set(opened.ids("candidate")), set(opened.ids("job"))
    try:
        with nullcontext() if dry_run else open_feedback(store) as feedback:
            report = ingest_events(feedback, files, applicants, jobs, options)
    except NoEventAccepted as error:
        _say_events(error.report)
        raise
    _say_events(report, dry_run)
    if dry_run:
        say("nothing was written")


def _say_events(report: EventReport, dry_run: bool = False) -> None:
    for note in report.notes:
        say(note)
    if report.first is not None and report.last is not None:
        new = "" if dry_run else f" ({report.new} new, {report.accepted - report.new} there already or twice)"
        say(
            f"events: {report.accepted} accepted{new}, {report.rejected} rejected; of {report.applicants} applicants, "
            f"{report.first.isoformat(timespec='seconds')} to {report.last.isoformat(timespec='seconds')}"
        )
    _say_groups(report.groups)
    for path in report.rejected_files:
        say(f"rejected records are listed in {path}")


def _say_groups(groups: Sequence[RejectionGroup]) -> None:
    """Why records were rejected, the most frequent reasons first."""
    for group in groups[:SHOWN_GROUPS]:
        first = group.example
        say(f"  rejected: {group.count} × {first.reason} (first: {first.file.name} line {first.line})")
    if len(groups) > SHOWN_GROUPS:
        rest = sum(group.count for group in groups[SHOWN_GROUPS:])
        say(f"  rejected: {rest} more for {len(groups) - SHOWN_GROUPS} other reasons")


@contextmanager
def _reading_at(url: str | None) -> Iterator[DocumentEndpoint | None]:
    """The endpoint that reads documents; what it cost is said even when the command fails."""
    if url is None:
        yield None
        return
    endpoint = DocumentEndpoint(url)
    try:
        yield endpoint
    finally:
        if endpoint.costs.calls:
            say(f"{endpoint.name}: {usage_line(endpoint.costs)}")


def _is_there(store: str) -> bool:
    try:
        with open_store(store, read_only=True):
            return True
    except InputError:
        return False


@contextmanager
def _made_or_removed(uri: str) -> Iterator[Store]:
    """The store; a folder that was created here is removed again if something fails before it has records."""
    folder = None if "://" in uri else Path(uri).expanduser()
    new = folder is not None and not (folder / STORE_FILE).exists()
    there = folder is not None and folder.is_dir()
    empty = False
    try:
        with open_store(uri, create=True) as opened:
            try:
                yield opened
            except BaseException:
                empty = new and not opened.ids("job") and not opened.ids("candidate")
                raise
    except BaseException:
        if folder is not None and empty:
            if there:
                for name in (STORE_FILE, ".lock"):
                    (folder / name).unlink(missing_ok=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        raise


def _explained(work: Any, *arguments: Any, **options: Any) -> Any:
    """Call a function; if it accepted nothing, print what was found in the files before the error ends the command."""
    try:
        return work(*arguments, **options)
    except NothingAccepted as error:
        _say(replace(error.report, advice=()))  # the error itself gives it
        raise


def _dry_run_market(onet: str, applicants: int) -> None:
    market = onet_market(onet, applicants=applicants)
    say(f"would write {len(market.jobs)} jobs, {len(market.applicants)} applicants, {len(market.qrels)} grades")


def _dry_run_files(store: str | None, files: dict[str, Any], options: InputOptions, encoder: Encoder | None) -> None:
    """Print what ingesting would print. An existing store supplies the columns that were named before."""
    with open_store(store, read_only=True) if store else nullcontext() as opened:
        report = ingest_files(opened, **files, encoder=encoder, dry_run=True, options=options)
    _say(report)
    for kind, counts in (("jobs", report.jobs), ("candidates", report.candidates)):
        if files[kind] and not (counts.accepted or counts.dropped):
            raise InputError(f"none of {counts.rejected} {kind} can be used; nothing was written")


def _say(report: IngestReport) -> None:
    for note in report.notes:
        say(note)
    for name, counts in (("jobs", report.jobs), ("candidates", report.candidates)):
        if counts != Counts():
            say(f"{name}: {_counts(counts)}")
    for text, count in report.mended:
        say(f"  mended: {text} ({count})")
    if report.personal:
        found = ", ".join(f"{kind} ({count})" for kind, count in report.personal)
        say(f"  taken out of applicants' texts: {found}; --keep-personal leaves them in")
    for name, counts in (("jobs", report.jobs), ("candidates", report.candidates)):
        if counts.exact or counts.near:
            say(f"  {_duplicates(name, counts)}")
    if report.alike:
        pairs = ", ".join(f"{one} as {first}" for one, first in report.alike)
        say(f"  for example {pairs}; candidates' records have no place for a link")
    _say_groups(report.groups)
    for line in report.advice:
        say(line)
    for path in report.rejected_files:
        say(f"rejected records are listed in {path}")


def _counts(counts: Counts) -> str:
    mended = f", {counts.mended} mended" if counts.mended else ""
    dropped = f", {counts.dropped} dropped as duplicates" if counts.dropped else ""
    return (
        f"{counts.accepted} accepted, {counts.rejected} rejected{mended}{dropped}; "
        f"{counts.embedded} embedded, {counts.unchanged} had their vectors"
    )


def _duplicates(name: str, counts: Counts) -> str:
    kinds = [f"{counts.exact} {name} say the same as an earlier one"]
    if counts.near:
        kinds.append(f"{counts.near} nearly the same")
    if counts.dropped:
        return " and ".join(kinds) + "; they were dropped"
    linked = ", linked by duplicate_of in their metadata" if name == "jobs" else ""
    return " and ".join(kinds) + f"; they were kept{linked}; --duplicates drop leaves them out"


if __name__ == "__main__":
    run_verb("ingest")
