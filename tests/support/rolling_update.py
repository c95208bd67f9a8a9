"""Replaces two replicas by a rolling update, and kills one, while a client uses them. Prints what happened as JSON.

python -m tests.support.rolling_update FOLDER
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx
from ray import serve

from cluster.session import ray_session
from dynaq.stores import open_store
from recommend_service.app import APPLICATION, recommend_application, start_recommender
from recommend_service.client import Api
from tests.support.judge_service import free_port
from tests.support.mongod import running_mongod
from tests.support.recommend_market import JOB_IDS, config, make_market, make_run, prefers


async def use(url: str, ended: asyncio.Event) -> tuple[int, list[str]]:
    """Sends an event and asks for a list in turn, one after the other; the number of events, and what failed."""
    failures: list[str] = []
    sent = 0
    async with Api(url) as api:
        await api.applicants(1)
        while not ended.is_set():
            event = {"applicant_id": "a0", "job_id": JOB_IDS[sent % len(JOB_IDS)], "event": "click"}
            try:
                await api.feedback([event], key=f"event {sent}")
                sent += 1
                await api.recommendations("a1", 5)
            except httpx.HTTPError as error:
                failures.append(repr(error))
    return sent, failures


async def processes(url: str, wanted: int, others_than: frozenset[int] = frozenset()) -> frozenset[int]:
    """The processes that answer, once there are that many besides others."""
    found: set[int] = set()
    async with httpx.AsyncClient() as client:
        while len(found) < wanted:
            try:
                response = await client.get(f"{url}/readyz")
                found |= {response.json()["process"]} - others_than
            except (httpx.HTTPError, ValueError):
                pass
            await asyncio.sleep(0.05)
    return frozenset(found)


async def replace(url: str, update: serve.Application) -> tuple[int, list[str]]:
    ended = asyncio.Event()
    using = asyncio.create_task(use(url, ended))
    first = await processes(url, 2)
    os.kill(min(first), signal.SIGKILL)
    second = await processes(url, 2, frozenset({min(first)}))
    await asyncio.to_thread(serve.run, update, name=APPLICATION, route_prefix="/")
    await processes(url, 2, first | second)
    ended.set()
    return await using


def main(folder: Path) -> None:
    make_run(folder / "run", {"a0": prefers(20)})
    with running_mongod(folder, replica_set=True) as server:
        store = make_market(f"{server}/market")
        settings = config(store, folder / "run", replicas=2, feedback_per_second=1e6)
        with ray_session():
            url = start_recommender(settings, port=free_port())
            update = recommend_application(settings.model_copy(update={"cached_agents": 7}))
            sent, failures = asyncio.run(replace(url, update))
            serve.shutdown()
        with open_store(store, read_only=True) as opened:
            stored = opened.feedback().num_rows
    print(json.dumps({"sent": sent, "stored": stored, "failures": failures}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
