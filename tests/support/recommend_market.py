"""A small market in a store, runs over it, and a service in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from dynaq.ingest.embedding import embed_pending
from dynaq.layout import EXTENDED
from dynaq.records import Candidate, Job
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import write_q_values, write_serving
from dynaq.stores import open_store
from recommend_service.api import make_app
from recommend_service.config import RecommendConfig
from recommend_service.service import Recommender
from tests.support.embedders import HashEmbedder

JOBS, APPLICANTS = 30, 5
JOB_IDS = tuple(f"j{i:02d}" for i in range(JOBS))
BASE_URL = "http://127.0.0.1"


def make_market(uri: str) -> str:
    """Jobs j00… and applicants a0…; the skills of a0 are those of j07."""
    with open_store(uri, create=True) as store:
        store.put_records("job", (make_job(i) for i in range(JOBS)))
        store.put_records(
            "candidate",
            [
                Candidate(id=f"a{i}", bio=f"I am number {i}.", hard_skills=(f"skill {i + 7}", "Cooking"))
                for i in range(APPLICANTS)
            ],
        )
        embed_pending(store, HashEmbedder(), EXTENDED)
    return uri


def make_job(i: int, **fields: object) -> Job:
    values = {"id": f"j{i:02d}", "title": f"Job <b>{i}</b>", "description": (f"Work of kind {i}. " * 30).strip()}
    return Job.model_validate(values | {"technical_skills": (f"Skill {i}", "cooking")} | fields)


def make_run(
    path: Path, q: Mapping[str, np.ndarray], job_ids: tuple[str, ...] = JOB_IDS, columns: np.ndarray | None = None
) -> str:
    """A run folder with these agents; its id. columns: those that Q is about, if not all."""
    folder = RunFolder.at(path)
    with folder.new_folder("agents/block_00000-0001") as files:
        write_q_values(files, list(q), np.stack(list(q.values())).astype(np.float32), columns)
    return write_serving(folder, "extended", job_ids, ["agents/block_00000-0001"])


def prefers(*best: int) -> np.ndarray:
    """Q that ranks these jobs first, the others by number."""
    q = -np.arange(JOBS, dtype=np.float32) / 100
    for place, job in enumerate(best):
        q[job] = 100.0 - place
    return q


@contextmanager
def serving(config: RecommendConfig) -> Iterator[TestClient]:
    """The application in this process, its caller on loopback."""
    app = make_app(Recommender(config, HashEmbedder()))
    with TestClient(app, base_url=BASE_URL, client=("127.0.0.1", 5000), raise_server_exceptions=False) as client:
        yield client


def config(store: str, run: Path | None, **fields: object) -> RecommendConfig:
    """The ranking itself, no exploring, and quick looks, unless told otherwise."""
    values = {
        "store": store,
        "run": str(run) if run else None,
        "explore": False,
        "poll_seconds": 0.05,
        "catalogue_seconds": 0.1,
    }
    return RecommendConfig.model_validate(values | fields)
