"""dynaq forget: erase an applicant from a store, run folders, networks and a running service."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

import typer

from dynaq.errors import DynaqError, InputError
from dynaq.rights.forgetting import Erased, forget_in_folder
from dynaq.rights.record import erased_at, forget_in_store, holds_applicant
from dynaq.runs.folder import RECOMMENDATIONS, RunFolder
from dynaq.stores import open_store
from jobs.cli import run_verb
from jobs.reporting.page import write_report
from jobs.steps.networks import refit
from jobs.steps.options import Applicant, Runs, Store
from jobs.terminal.console import print_json, say
from recommend_service.client import Api
from recommend_service.config import API_KEY


def main(
    store: Store,
    applicant: Applicant,
    runs: Runs = None,
    refit_networks: Annotated[
        bool, typer.Option("--refit", help="fit networks that learned from the applicant again, without them")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(help="running service of the store, which erases its part itself; key in $DYNAQ_API_KEY"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Erase one applicant. Can be repeated: after an interruption it finishes what is left."""
    erased = Erased()
    with open_store(store, read_only=True) as opened:
        known_since = erased_at(opened.forgotten(), applicant)
    for folder in runs or []:
        erased += forget_in_folder(folder, applicant)
    if url:
        counts = asyncio.run(_forget_in_service(url, applicant))
    else:
        with open_store(store) as writable:
            counts = forget_in_store(writable, applicant) if holds_applicant(writable, applicant) or erased.runs else {}
    if not any(counts.values()) and not erased.runs and not erased.networks and known_since is None:
        raise InputError(f"nothing is held about applicant {applicant!r} in store {store!r} or the folders named")
    _write_reports(erased, store)
    refitted = [one for one in erased.networks if refit_networks and _refit(one, store)]
    found: dict[str, Any] = {"rows": counts, **vars(erased), "refitted": refitted, "erased_before": known_since}
    if as_json:
        print_json(found)
    else:
        _show(found)


async def _forget_in_service(url: str, applicant_id: str) -> dict[str, int]:
    async with Api(url, os.environ.get(API_KEY)) as api:
        return await api.forget(applicant_id)


def _write_reports(erased: Erased, store: str) -> None:
    """Write the reports of the runs again, which were deleted first."""
    for uri in erased.reports:
        folder = RunFolder.at(uri)
        if folder.exists(RECOMMENDATIONS) and not folder.read_table(RECOMMENDATIONS).num_rows:
            continue  # the run had no other applicant
        try:
            write_report(folder, store)
        except DynaqError as error:
            say(f"the report of {uri} was deleted and cannot be written again: {error}")


def _refit(folder: str, store: str) -> bool:
    try:
        refit(folder, store)
    except InputError as error:
        say(f"{folder} cannot be fitted again: {error}; delete it, or fit others with dynaq pretrain")
        return False
    return True


def _show(found: dict[str, Any]) -> None:
    say(", ".join(f"{name} {count}" for name, count in found["rows"].items()) or "the store held nothing")
    for uri in found["runs"]:
        say(f"erased from {uri}")
    for uri in found["networks"]:
        if uri in found["refitted"]:
            say(f"fitted again without them: {uri}; unfinished runs that started from it must be trained anew")
        else:
            say(f"still shaped by judgements of who was forgotten: {uri}; fit it again with --refit, or delete it")
    for path in found["ledgers"]:
        say(f"not touched, as it is your own: ledger {path}, from which a run learned; remove their rows there")
    for uri in found["unresumable"]:
        say(f"{uri} is unfinished and of an earlier version; it cannot be resumed, train it anew")
    say("not touched: input files, backups, and what other programs keep; see docs/rights.md")


if __name__ == "__main__":
    run_verb("forget")
