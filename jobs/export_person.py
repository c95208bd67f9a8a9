"""dynaq export-person: everything that is held about one applicant, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dynaq.errors import DynaqError
from dynaq.ingest.report import replace_file
from dynaq.rights.export import export_person
from dynaq.stores import open_store
from jobs.cli import run_verb
from jobs.steps.options import Applicant, Runs, Store
from jobs.terminal.console import say


def main(
    store: Store,
    applicant: Applicant,
    runs: Runs = None,
    out: Annotated[str | None, typer.Option(help="file to write; default: standard output")] = None,
) -> None:
    """Write everything that is held about one applicant, with what each part means."""
    with open_store(store, read_only=True) as opened:
        text = json.dumps(export_person(opened, applicant, runs or []), indent=2, ensure_ascii=False)
    if out is None:
        print(text)
        return
    if not replace_file(Path(out), text + "\n", "nothing was exported"):
        raise DynaqError(f"{out} could not be written")
    say(f"all that is held about them: {out}")


if __name__ == "__main__":
    run_verb("export-person")
