"""A ledger of a store's own relevance: the judge of the O*NET benchmark, for `--judge ledger:FILE`.

    python -m bench.graded_ledger --store FOLDER --out ledger.parquet [--applicants 32] [--cohort cohort.txt]

Grade 3, 2, 1, 0 answers APPLY, SAVE, CLICK, IGNORE on every pair. --cohort writes down the ids of the applicants, which
are the first ones of the market's order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dynaq.judging.judgement import LABELS
from dynaq.stores import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--applicants", type=int, default=32)
    parser.add_argument("--cohort", type=Path)
    args = parser.parse_args()
    with open_store(args.store, read_only=True) as store:
        qrels = store.qrels()
        if qrels is None:
            parser.error(f"store {args.store} has no relevance; make one with dynaq ingest --onet")
        job_ids = store.ids("job")
        applicants = qrels.applicants[: args.applicants]
        rows = []
        for applicant_id in applicants:
            grades = qrels.grades(applicant_id)
            rows += [
                {"applicant_id": applicant_id, "job_id": job_id, "label": LABELS[3 - int(grades.get(job_id, 0))]}
                for job_id in job_ids
            ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), args.out)
    if args.cohort:
        args.cohort.write_text("\n".join(applicants) + "\n", encoding="utf-8")
    print(f"{len(rows)} judgements of {len(applicants)} applicants: {args.out}")


if __name__ == "__main__":
    main()
