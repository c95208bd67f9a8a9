"""The judgements that networks are pre-trained on, and fitting networks again without somebody."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dynaq.agent.tensor_files import read_saved
from dynaq.errors import InputError
from dynaq.judging.history import judge_of, memory_of, newest_answers
from dynaq.judging.ledger_file import LEDGER, read_ledger
from dynaq.pretraining.fit import pretrain
from dynaq.pretraining.prior import PRETRAINED, Pretrained
from dynaq.stores import Store, open_store
from dynaq.tensor_cache import TensorCache
from jobs.terminal.console import say


def answers_of(store: Store, judge: str | None) -> tuple[pa.Table, str | None]:
    """The judgements to learn from, and whose they are.

    Args:
        store: with the ledger.
        judge: `ledger:PATH` or a fingerprint in the store's ledger; None: the one with most judgements there.

    Raises InputError when there are none.
    """
    if judge and judge.startswith(LEDGER):
        path = Path(judge.removeprefix(LEDGER)).resolve()
        judge, ledger = f"{LEDGER}{path}", read_ledger(path)
    else:
        ledger = store.judgements(judge=None if judge and memory_of(judge) else judge)
        if judge is None and ledger.num_rows:
            # Labels of different judges are not comparable.
            judge = Counter(map(judge_of, ledger.column("judge").to_pylist())).most_common(1)[0][0]
            ledger = ledger if memory_of(judge) else ledger.filter(pc.equal(ledger.column("judge"), judge))
        if judge and memory_of(judge):
            ledger = newest_answers(ledger, judge)
    if not ledger.num_rows:
        raise InputError(
            f"store {store.uri!r} has no judgements{f' of judge {judge!r}' if judge else ''} to learn from; "
            "train a first cohort, or give --judge ledger:PATH"
        )
    return ledger, judge


def refit(folder: str, store_uri: str) -> Pretrained:
    """Fit a folder's networks again on the applicants that it still lists. Raises InputError when none is left."""
    _, record = read_saved(folder, PRETRAINED, "pre-trained networks in")
    fitted_on = record.get("fitted_on") or {}
    with open_store(store_uri, read_only=True) as store:
        cache = TensorCache.copy_from_database(store, layout=record["layout"])
        ledger, judge = answers_of(store, fitted_on.get("judge"))
    seed = int(fitted_on.get("seed", 0))
    networks = pretrain(
        cache,
        ledger.filter(pc.is_in(ledger.column("applicant_id"), pa.array(record["applicants"], pa.string()))),
        seed=seed,
        progress=say,
    )
    networks.save(folder, {"judge": judge, "seed": seed})
    return networks
