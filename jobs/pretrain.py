"""dynaq pretrain: networks that every agent starts from, fitted on what other applicants were judged to like."""

from __future__ import annotations

from typing import Annotated

import typer

from dynaq.pretraining.fit import pretrain
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run_verb
from jobs.steps.cohort import read_cohort
from jobs.steps.networks import answers_of
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
        ledger, judge = answers_of(opened, judge)
    networks = pretrain(cache, ledger, exclude=left_out, seed=seed, progress=say)
    networks.save(out, {"judge": judge, "seed": seed})
    say(f"{len(networks.applicants)} applicants' judgements, {ledger.num_rows} pairs: {out}")
    say(gain_of(networks))


if __name__ == "__main__":
    run_verb("pretrain")
