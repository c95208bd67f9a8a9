"""dynaq report: one page with the comparison, the learning curves, the judge and each applicant's lists."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dynaq.evaluation.comparison import line_name
from dynaq.runs.folder import RunFolder
from jobs.cli import run_verb
from jobs.reporting.page import write_report
from jobs.terminal.console import say


def main(
    run: Annotated[str, typer.Option(help="run folder")],
    qrels: Annotated[str | None, typer.Option(help="relevance file; default: the store's")] = None,
    store: Annotated[str | None, typer.Option(help="where the store is now, if not where the run found it")] = None,
    service: Annotated[
        str | None, typer.Option(help="address of dynaq serve --recommend, to link each applicant to their page")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Write report.html into a run folder, and what TensorBoard shows of it."""
    folder = RunFolder.at(run)
    report = write_report(folder, store, qrels, service)
    if as_json:
        metrics = {line_name(one): one["metrics"] for one in report.comparison["strategies"]}
        found = {"report": report.uri, "bytes": report.bytes, "applicants": report.applicants, "shown": report.shown}
        print(json.dumps(found | {"strategies": metrics}))
        return
    kib = report.bytes / 1024
    shown = f"{report.shown} of {report.applicants}" if report.shown < report.applicants else str(report.shown)
    say(f"{report.uri} ({kib:.0f} KiB, {shown} applicants)")


if __name__ == "__main__":
    run_verb("report")
