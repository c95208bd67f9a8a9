"""dynaq pretrain: networks that every agent starts from, fitted on what other applicants were judged to like."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import pyarrow.compute as pc
import typer

from dynaq.errors import InputError
from dynaq.judging.ledger_file import LEDGER, read_ledger
from dynaq.pretraining.fit import pretrain
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run_verb
from jobs.steps.cohort import read_cohort
from jobs.steps.options import Layout, Store
from jobs.terminal.console import say
from jobs.terminal.tables import gain_of


def main(
    store: Store,
    out: Annotated[str, typer.Option(help="folder for the networks")],
    judge: Annotated[
        str | None,
        typer.Option(help="ledger:PATH, or a judge's fingerprint in the store's ledger; default: its largest"),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="applicants whose judgements must not be used: a file with ids, or id,id")
    ] = None,
    layout: Layout = None,
    seed: Annotated[int, typer.Option(min=0, help="of weights and batches")] = 0,
) -> None:
    """Fit the networks on the ledger. No agent starts from networks that saw its own applicant's judgements."""
    with open_store(store, read_only=True) as opened:
        left_out = read_cohort(exclude, opened) if exclude else []
        cache = TensorCache.copy_from_database(opened, layout=layout)
        if judge and judge.startswith(LEDGER):
            ledger = read_ledger(judge.removeprefix(LEDGER))
        else:
            ledger = opened.judgements(judge=judge)
    if judge is None and ledger.num_rows:
        judge = Counter(ledger.column("judge").to_pylist()).most_common(1)[0][
            0
        ]  # labels of different judges are not comparable
        ledger = ledger.filter(pc.equal(ledger.column("judge"), judge))
    if not ledger.num_rows:
        raise InputError(
            f"store {store!r} has no judgements{f' of judge {judge!r}' if judge else ''} to learn from; "
            "train a first cohort, or give --judge ledger:PATH"
        )
    networks = pretrain(cache, ledger, exclude=left_out, seed=seed, progress=say)
    networks.save(out)
    say(f"{len(networks.applicants)} applicants' judgements, {ledger.num_rows} pairs: {out}")
    say(gain_of(networks))


if __name__ == "__main__":
    run_verb("pretrain")
