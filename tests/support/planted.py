"""A person who cannot be confused with anything, and a search for them in everything that was kept."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymongo import MongoClient
from safetensors import safe_open

from dynaq.feedback.events import Decision, Exposure
from dynaq.layout import EXTENDED
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Experience
from dynaq.runs.folder import RunFolder
from dynaq.stores import Store, open_store
from dynaq.tensor_cache import TensorCache
from tests.support.events import START, event
from tests.support.toy_market import ToyMarket, grade_judgement, toy_market

PERSON = "zq-planted-7f3a"
COHORT = ["ann00", PERSON, "ann01", "ann02", "ann03"]  # the person in the middle of the first block
LEFT = [one for one in COHORT if one != PERSON]
DIMENSION, JOBS = 16, 12
WORDS = (PERSON, "Xylographist of Quendale", "zq-planted-vellum")  # the id, a past, a skill


def plant(store: Store, dimension: int = DIMENSION) -> None:
    """The person in every table of a store."""
    profile = Candidate(
        id=PERSON, bio="I carve.", hard_skills=(WORDS[2],), experience=(Experience(title=WORDS[1], company="Q"),)
    )
    store.put_records("candidate", [profile])
    vectors = np.random.default_rng(3).standard_normal((1, dimension)).astype(np.float32)
    store.put_vectors("candidate", [PERSON], dict.fromkeys(EXTENDED.state, vectors), ["hash-of-planted"])
    store.add_judgements([grade_judgement(PERSON, f"job{i:03d}", i % 4) for i in range(JOBS)])
    store.add_feedback([event("k1", applicant=PERSON, job="job001"), event("k2", applicant="ann00", job="job001")])
    shown = [(one, f"x-{one}") for one in (PERSON, "ann00")]
    store.add_exposures([Exposure(one, key, START, ("job001",), (1.0,), "run-1", None) for one, key in shown])
    store.add_decisions([Decision(PERSON, "job002", "block", START, "operator", "asked for it", "d1")])
    store.put_qrels(Qrels({PERSON: {"job001": 3.0}, "ann00": {"job002": 1.0}}))


def planted_market(folder: Path, jobs: int = JOBS) -> ToyMarket:
    """A small market with the person in every table of its store."""
    market = toy_market(folder, jobs, len(LEFT), dimension=DIMENSION)
    with open_store(market.store) as store:
        plant(store)
    return replace(market, grades={**market.grades, PERSON: {f"job{i:03d}": i % 4 for i in range(jobs)}})


def cache_of(market: ToyMarket) -> TensorCache:
    """Of the store as it is now."""
    with open_store(market.store, read_only=True) as store:
        return TensorCache.copy_from_database(store)


def found_in(name: str, data: bytes) -> list[str]:
    """Which of WORDS a file holds, decoded: tables, arrays and tensors are opened, everything else is searched."""
    text = data
    if name.endswith(".parquet"):
        table = pq.read_table(pa.BufferReader(data))
        text += repr(pq.read_metadata(pa.BufferReader(data)).to_dict()).encode()
        text += json.dumps(table.to_pylist(), default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
    elif name.endswith((".npy", ".npz")):
        text += repr(np.load(io.BytesIO(data), allow_pickle=False)).encode()
    elif name.endswith(".safetensors"):
        text += data[8 : 8 + int.from_bytes(data[:8], "little")]
    return [word for word in WORDS if word.encode() in text]


def found_in_folder(folder: Path) -> dict[str, list[str]]:
    """File -> which of WORDS it holds, over all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return _held((str(path), path.read_bytes()) for path in files)


def found_in_run(folder: RunFolder) -> dict[str, list[str]]:
    """The same for a run folder anywhere."""
    return _held((name, folder.read_bytes(name)) for name in folder.files())


def found_in_mongo(uri: str) -> dict[str, list[str]]:
    """The same for all documents of all collections of a database, as BSON."""
    with MongoClient(uri) as client:
        database = client.get_default_database()
        return _held((name, b"".join(database[name].find_raw_batches({}))) for name in database.list_collection_names())


def rows_of(folder: RunFolder) -> int:
    """Number of agents in all checkpoints, by the tensors themselves."""
    agents = 0
    for name in folder.files():
        if name.endswith("block.safetensors"):
            with folder.as_local(name.rpartition("/")[0]) as path, safe_open(path / "block.safetensors", "np") as file:
                agents += file.get_slice("judged.counts").get_shape()[0]
    return agents


def _held(files: Iterable[tuple[str, bytes]]) -> dict[str, list[str]]:
    held = {name: found_in(name, data) for name, data in files}
    return {name: words for name, words in held.items() if words}
