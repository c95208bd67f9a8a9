"""Reading cohorts and relevance, which several verbs do alike."""

from __future__ import annotations

from os.path import isfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from dynaq.errors import InputError
from dynaq.evaluation.true_rewards import TrueRewards
from dynaq.qrels import Qrels, read_qrels
from dynaq.runs.folder import GOLD, RunFolder
from dynaq.stores import Store

ID_COLUMNS = ("applicant_id", "id", "_id")


def read_cohort(cohort: str, store: Store) -> list[str]:
    """Applicant ids of `all`, of a file, or of a comma-separated list, in that order and each once.

    A file is Parquet, CSV or JSONL with a column `applicant_id` or `id`, or text with one id per line.
    Raises InputError when an applicant is not in the store, or when there is none.
    """
    known = store.ids("candidate")
    if cohort == "all":
        wanted = known
    elif isfile(cohort):  # not Path's, which raises when a long list of ids cannot be a name
        wanted = _ids_in_file(Path(cohort))
    elif cohort.endswith((".csv", ".parquet", ".jsonl", ".txt")):
        raise InputError(f"cohort file {cohort} does not exist")
    else:
        wanted = [part.strip() for part in cohort.split(",")]
    ids = list(dict.fromkeys(applicant_id for applicant_id in wanted if applicant_id))
    if not ids:
        raise InputError(f"cohort {cohort!r} names no applicant; use all, a file or ids separated by commas")
    have = set(known)
    for applicant_id in ids:
        if applicant_id not in have:
            raise InputError(f"applicant {applicant_id!r} is not in store {store.uri}, which has {len(known)}")
    return ids


def _ids_in_file(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = pq.read_table(path)
        elif suffix == ".csv":
            types = dict.fromkeys(ID_COLUMNS, pa.string())
            table = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=types))
        elif suffix == ".jsonl":
            table = pa_json.read_json(path)
        else:
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(f"cohort file {path} cannot be read: {str(error).splitlines()[0]}") from None
    for name in ID_COLUMNS:
        if name in table.column_names:
            return [str(value) for value in table.column(name).to_pylist() if value is not None]
    raise InputError(f"cohort file {path} has no column applicant_id or id")


def relevance(path: str | None, store: Store) -> Qrels | None:
    """The qrels of a file when one is named, else the store's own, if any."""
    return read_qrels(path) if path else store.qrels()


def known_truth(store: Store, qrels: Qrels | None, folder: RunFolder, gold: pa.Table | None = None) -> TrueRewards:
    """What is known of the truth of pairs: the store's events, `gold` or the labels that a run was given, relevance."""
    if gold is None and folder.exists(GOLD):
        gold = folder.read_table(GOLD)
    return TrueRewards(store.feedback(), gold, qrels)
