"""The session's judge: a real engine, a real Serve, a real store."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynaq.markets import Market, esco_market
from dynaq.stores import open_store
from reward_service.app import running_judge, start_service, stop_judge
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig

API_KEY = "key-of-the-tests"


@dataclass(frozen=True)
class JudgeService:
    """A running judge: its address and key, a client over its handle, its configuration and the market in its store."""

    url: str
    api_key: str
    judge: ServeJudge
    config: JudgeConfig
    market: Market
    store_uri: str


@contextmanager
def running_judge_service(folder: Path) -> Iterator[JudgeService]:
    """Bring it up, and down at the end."""
    market = esco_market(applicants=4, postings=2)
    store_uri = str(folder / "store")
    with open_store(store_uri, create=True) as store:
        store.put_records("job", market.jobs)
        store.put_records("candidate", market.applicants)
        store.put_qrels(market.qrels)
    # With memory: told no history, it answers as the judge without does, which most tests ask for.
    config = JudgeConfig(api_key=API_KEY, store=store_uri, max_pending_pairs=96, memory=3)
    url = start_service(config, port=free_port())
    judge = running_judge()
    assert judge is not None
    try:
        yield JudgeService(url, API_KEY, judge, config, market, store_uri)
    finally:
        stop_judge()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
