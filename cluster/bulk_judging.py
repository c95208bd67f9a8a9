"""Judges many pairs ahead of training: a stream of slates through Ray Data, the broker and the judge, into the ledger.

Ray Data reads the pairs lazily and bounds how many are under way. They are judged by the broker's judge, not by engines
inside Ray Data's own actors: those would need a second engine's memory beside the service's and a second place that
knows its configuration, queue, replacement and costs, could not be an endpoint, and would write the ledger from several
processes. So fingerprints are those of training and of the service, and since the broker asks the ledger first, an
interrupted command goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.actor import ActorHandle
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from cluster.broker import BrokerClient
from cluster.cache import CacheRef
from dynaq.errors import DynaqError, InputError, JudgeError
from dynaq.ingest.file_formats import open_table
from dynaq.ingest.tables import ReadOptions, Unreadable
from dynaq.judging.judgement import Judgement, Slate

PAIR_COLUMNS = ("applicant_id", "job_id")
SLATE_PAIRS = 32  # of one applicant in one request; the engine batches by itself
TASK_SLATES = 16
TASKS = 4  # that wait for the broker at once: together as many applicants as it has judged at once
BLOCK_BYTES = 16 << 10  # a few tasks' slates, so that a short file too is judged by all of them
JUDGE_AWAY = 8  # slates in a row that fail are no matter of single applicants any more

SLATE_SCHEMA = pa.schema(
    [
        ("applicant_id", pa.string()),
        ("job_ids", pa.list_(pa.string())),
        ("line", pa.int64()),  # of the first pair; 0 where there is no file
        ("problem", pa.string()),  # why the row cannot be used; null for a slate
    ]
)
OUTCOME_SCHEMA = pa.schema(
    [
        ("applicant_id", pa.string()),
        ("line", pa.int64()),
        ("pairs", pa.int64()),
        ("abstained", pa.int64()),
        ("rejected", pa.bool_()),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True)
class Outcome:
    """What became of one slate, or of a row that is none.

    Args:
        applicant_id, line: of the slate; the line is 0 where there is no file.
        pairs: in the ledger now, or abstained.
        abstained: of these, pairs that the judge could not answer.
        rejected: whether the row was refused and nobody was asked.
        problem: why it was refused, or why the judge failed; "" if it was judged.
    """

    applicant_id: str
    line: int
    pairs: int
    abstained: int
    rejected: bool
    problem: str


@dataclass(frozen=True)
class KnownIds:
    """Ids of the store, which rows of a file must name."""

    applicants: frozenset[str]
    jobs: frozenset[str]


def nearest_slates(cache: CacheRef, applicants: int, n: int) -> ray.data.Dataset:
    """The n nearest jobs of each of the cache's applicants, by cosine."""
    with _small_blocks():
        rows = ray.data.range(applicants, override_num_blocks=max(1, applicants // TASK_SLATES))
        return rows.map_batches(partial(_nearest, cache=cache, n=n), batch_format="pyarrow", batch_size=TASK_SLATES)


def file_slates(path: Path, known: KnownIds) -> ray.data.Dataset:
    """The pairs (`applicant_id, job_id`) of a file on this machine; consecutive ones of an applicant as one slate.

    A row that cannot be used becomes a row with a `problem`. Any format of `dynaq ingest`.
    """
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with _small_blocks():
        source = PairFile(path, ray.put(known))
        pairs: ray.data.Dataset = ray.data.read_datasource(source, override_num_blocks=1, label_selector=here)
        return pairs


def count_pairs(path: Path) -> int:
    """Rows of a file of pairs. Raises InputError when it cannot be read, or has other columns."""
    with open_table(path, _options()) as table:
        missing = [name for name in PAIR_COLUMNS if table.columns is not None and name not in table.columns]
        if missing:
            raise InputError(f"pairs {path} has no column {missing[0]}; it needs applicant_id and job_id")
        return sum(1 for _ in table.records)


def judge_slates(slates: ray.data.Dataset, broker: ActorHandle[Any]) -> Iterator[Outcome]:
    """Have slates judged, as they come. Yields what became of each, in any order.

    Raises JudgeError when JUDGE_AWAY slates in a row fail; what the judge has answered is in the ledger.
    """
    with _small_blocks():
        outcomes = slates.map_batches(
            partial(_judge, broker=broker),
            batch_format="pyarrow",
            batch_size=TASK_SLATES,
            num_cpus=0.01,  # it only waits
            concurrency=TASKS,
        )
        batches: Any = outcomes.iter_batches(batch_format="pyarrow", batch_size=None)
    failures = 0
    for batch in batches:
        for outcome in (Outcome(**row) for row in batch.to_pylist()):
            yield outcome
            if not outcome.rejected:
                failures = failures + 1 if outcome.problem else 0
            if failures == JUDGE_AWAY:
                raise JudgeError(outcome.problem)


class PairFile(Datasource):
    """A file of pairs as one streaming read task. `known`: of `KnownIds`."""

    def __init__(self, path: Path, known: ray.ObjectRef[KnownIds]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path, self._known = path, known

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One, since reading is far faster than judging."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=(str(self._path),))
        return [ReadTask(partial(_read_slates, self._path, self._known), unknown, SLATE_SCHEMA)]


def _read_slates(path: Path, known: ray.ObjectRef[KnownIds]) -> Iterator[pa.Table]:
    rows = pair_rows(path, ray.get(known))
    while some := list(islice(rows, TASK_SLATES)):
        yield pa.Table.from_pylist(some, schema=SLATE_SCHEMA)


def pair_rows(path: Path, known: KnownIds) -> Iterator[dict[str, Any]]:
    """Rows of SLATE_SCHEMA from a file of pairs."""
    slate: dict[str, Any] | None = None
    with open_table(path, _options()) as table:
        for line, row in table.records:
            applicant_id, job_id, problem = _checked(row, known)
            if problem:
                yield {"applicant_id": applicant_id, "job_ids": [], "line": line, "problem": problem}
                continue
            if slate and (slate["applicant_id"] != applicant_id or len(slate["job_ids"]) == SLATE_PAIRS):
                yield slate
                slate = None
            slate = slate or {"applicant_id": applicant_id, "job_ids": [], "line": line, "problem": None}
            slate["job_ids"].append(job_id)
    if slate:
        yield slate


def _checked(row: dict[str, Any] | Unreadable, known: KnownIds) -> tuple[str, str, str]:
    """Applicant, job and why the row cannot be used, "" if it can."""
    if isinstance(row, Unreadable):
        return "", "", str(row)
    # Ids are text in a store; a file may have them as numbers.
    ids = ["" if row.get(name) is None else str(row[name]).strip() for name in PAIR_COLUMNS]
    for name, one, have in zip(PAIR_COLUMNS, ids, (known.applicants, known.jobs), strict=True):
        if not one:
            return ids[0], ids[1], f"{name} is missing"
        if one not in have:
            return ids[0], ids[1], f"{name} {one[:200]!r} is not in the store"
    return ids[0], ids[1], ""


def _options() -> ReadOptions:
    return ReadOptions(known=frozenset(PAIR_COLUMNS))


def _nearest(batch: pa.Table, cache: CacheRef, n: int) -> pa.Table:
    vectors = cache.attach()
    rows = []
    for index in batch.column("id").to_pylist():
        applicant_id = vectors.applicant_ids[index]
        job_ids = [vectors.job_ids[job] for job in vectors.top_k(applicant_id, n)[0]]
        rows += [
            {"applicant_id": applicant_id, "job_ids": job_ids[start : start + SLATE_PAIRS], "line": 0, "problem": None}
            for start in range(0, len(job_ids), SLATE_PAIRS)
        ]
    return pa.Table.from_pylist(rows, schema=SLATE_SCHEMA)


def _judge(batch: pa.Table, broker: ActorHandle[Any]) -> pa.Table:
    rows = batch.to_pylist()
    slates = [Slate(row["applicant_id"], tuple(row["job_ids"])) for row in rows if not row["problem"]]
    answers = iter(_fetch_each(BrokerClient(broker).fetch, slates))
    outcomes = [
        Outcome(row["applicant_id"], row["line"], 0, 0, True, row["problem"])
        if row["problem"]
        else _outcome(row, next(answers))
        for row in rows
    ]
    return pa.Table.from_pylist([vars(outcome) for outcome in outcomes], schema=OUTCOME_SCHEMA)


def _outcome(row: dict[str, Any], answers: list[Judgement] | DynaqError) -> Outcome:
    if isinstance(answers, DynaqError):
        return Outcome(row["applicant_id"], row["line"], 0, 0, False, str(answers))
    abstained = sum(answer.abstained for answer in answers)
    return Outcome(row["applicant_id"], row["line"], len(answers), abstained, False, "")


def _fetch_each(
    fetch: Callable[[list[Slate]], list[list[Judgement]]], slates: list[Slate]
) -> list[list[Judgement] | DynaqError]:
    """Judgements per slate, or why there are none."""
    try:
        return list(fetch(slates)) if slates else []
    except DynaqError:  # of one slate or more; the others' answers are in the ledger by now
        with ThreadPoolExecutor(len(slates)) as together:  # a judge that is away is waited for once
            return list(together.map(partial(_fetch_one, fetch), slates))


def _fetch_one(fetch: Callable[[list[Slate]], list[list[Judgement]]], slate: Slate) -> list[Judgement] | DynaqError:
    try:
        return fetch([slate])[0]
    except DynaqError as error:
        return error


@contextmanager
def _small_blocks() -> Iterator[None]:
    """Ray Data's settings for what is planned within: small blocks, and nothing printed."""
    context = ray.data.DataContext.get_current()
    ours = {"target_max_block_size": BLOCK_BYTES, "enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in ours}
    try:
        for name, value in ours.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
