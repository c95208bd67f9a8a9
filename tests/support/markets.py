"""A small store with vectors, relevance and a ledger that answers every pair, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynaq.layout import BLOCK_DIM, CANDIDATE_BLOCKS, JOB_BLOCKS
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from tests.support.judges import rule

JOBS, APPLICANTS = 40, 6


def make_store(uri: str, jobs: int = JOBS, applicants: int = APPLICANTS, without_vectors: int = 0) -> None:
    """Jobs j000…, applicants a000…; the last `without_vectors` applicants have texts only."""
    rng = np.random.default_rng(7)
    job_ids = [f"j{i:03d}" for i in range(jobs)]
    applicant_ids = [f"a{i:03d}" for i in range(applicants)]
    embedded = applicant_ids[: applicants - without_vectors]
    with open_store(uri, create=True) as store:
        store.put_records("job", [Job(id=job_id, title=f"Title of {job_id} <b>") for job_id in job_ids])
        store.put_records("candidate", [Candidate(id=one, bio=f"I am {one}.") for one in applicant_ids])
        store.put_vectors("job", job_ids, {block: _unit(rng, jobs) for block in JOB_BLOCKS})
        store.put_vectors("candidate", embedded, {block: _unit(rng, len(embedded)) for block in CANDIDATE_BLOCKS})
        store.put_qrels(
            Qrels({one: {job_ids[i % jobs]: 3.0, job_ids[(i + 1) % jobs]: 1.0} for i, one in enumerate(applicant_ids)})
        )
        store.put_meta(layout="extended")


def make_ledger(path: Path, jobs: int = JOBS, applicants: int = APPLICANTS) -> str:
    """A ledger file with every pair, answered by rule."""
    names = ("p_apply", "p_save", "p_click", "p_ignore")
    rows = [
        {"applicant_id": f"a{a:03d}", "job_id": f"j{j:03d}"}
        | dict(zip(names, rule(f"a{a:03d}", f"j{j:03d}"), strict=True))
        for a in range(applicants)
        for j in range(jobs)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def _unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    vectors = rng.standard_normal((rows, BLOCK_DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
