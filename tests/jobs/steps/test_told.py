"""What a judge with memory is told of a store's feedback, what that costs, and what the ledger keeps of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from cluster.broker import JudgeBackend, JudgeBroker
from dynaq.judging.history import PastEvent, ledger_key, without_memory
from dynaq.judging.judgement import Judgement, Slate
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.stores import open_store
from jobs.steps.feedback_answers import told
from jobs.steps.judge_backend import judge_backend, quote
from reward_service.costs import Costs
from tests.support.events import event
from tests.support.markets import make_store
from tests.support.openai_server import Server, openai_server

NOW = datetime.now(UTC)
TOLD = (
    PastEvent(event="ignore", job_id="j002", ago="this week"),
    PastEvent(event="apply", job_id="j001", ago="this week"),
)
SLATES = [Slate("a000", ("j007", "j008")), Slate("a001", ("j007",))]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """a000 acted on three jobs, one of them long ago, and a001 on one that is gone."""
    uri = str(tmp_path / "store")
    make_store(uri)
    with open_store(uri) as opened:
        opened.add_feedback(
            [
                event(applicant="a000", job="j001", what="apply", at=NOW - timedelta(days=3)),
                event(applicant="a000", job="j002", what="ignore", at=NOW - timedelta(days=2)),
                event(applicant="a000", job="j003", what="save", at=NOW - timedelta(days=300)),
                event(applicant="a001", job="gone", what="apply", at=NOW - timedelta(days=2)),
            ]
        )
    return uri


def backend_on(server: Server, folder: Path, memory: int = 2) -> JudgeBackend:
    fields = {"endpoint": server.url, "model": "small", "memory": memory, "price_in": 2, "price_out": 8}
    file = folder / f"judge-{memory}.yaml"
    file.write_text(yaml.safe_dump(fields))
    return judge_backend(f"vllm:{file}")


def asked(store: str, backend: JudgeBackend, slates: Sequence[Slate] = SLATES) -> tuple[list[list[Judgement]], Costs]:
    """The answers of a broker, and what the judge has cost."""

    async def ask() -> tuple[list[list[Judgement]], Costs]:
        broker = JudgeBroker(store, backend)
        answers = await broker.fetch(slates)
        costs = await broker.costs()
        await broker.close()
        return answers, Costs(**(costs or asdict(Costs())))

    return asyncio.run(ask())


def prompts(server: Server) -> list[str]:
    return ["\n".join(message["content"] for message in body["messages"]) for body in server.requests]


def test_a_judge_is_told_the_newest_events_and_its_answers_have_keys_of_their_own(store: str, tmp_path: Path) -> None:
    with openai_server("vllm") as server:
        backend = told(backend_on(server, tmp_path), store, ["a000", "a001"])
        assert backend.histories == {"a000": TOLD}
        answers, costs = asked(store, backend)
        with_history = [text for text in prompts(server) if "<history>" in text]
        lines = "Not for me (this week): Title of j002 ‹b›\nApplied for (this week): Title of j001 ‹b›\n</history>"
        assert len(with_history) == 2
        assert all(lines in text and "I am a000." in text for text in with_history)
        keys = [ledger_key(backend.fingerprint, TOLD), without_memory(backend.fingerprint)]
        assert [[one.judge for one in part] for part in answers] == [[keys[0]] * 2, [keys[1]]]

        assert costs.calls == len(server.requests) == 1 + 3  # the probe
        assert costs.prompt_tokens == server.tokens_in
        assert costs.cost == pytest.approx((2 * costs.prompt_tokens + 8 * costs.completion_tokens) / 1e6)
        again, _ = asked(store, backend)  # a new process, which reads the ledger
        assert [[one.judge for one in part] for part in again] == [[one.judge for one in part] for part in answers]
        assert len(server.requests) == 4


def test_without_feedback_everything_is_as_without_memory(store: str, tmp_path: Path) -> None:
    with open_store(store) as opened:
        opened.forget_events("a000")
        opened.forget_events("a001")
    with openai_server("vllm") as server:
        backends = [told(backend_on(server, tmp_path, memory), store, ["a000", "a001"]) for memory in (0, 2)]
        assert [backend.histories for backend in backends] == [{}, {}]
        server.requests.clear()
        plain, _ = asked(store, backends[0])
        assert len(server.requests) == 3
        same, _ = asked(store, backends[1])
        assert len(server.requests) == 3  # all in the ledger
    assert [[(a.judge, a.probabilities) for a in part] for part in plain] == [
        [(a.judge, a.probabilities) for a in part] for part in same
    ]


def test_a_quote_counts_the_history(store: str, tmp_path: Path) -> None:
    with openai_server("vllm") as server:
        backend = told(backend_on(server, tmp_path), store, ["a000"])
        with_it = quote(backend, store, ["a000"], 1000)
        without = quote(replace(backend, histories={}), store, ["a000"], 1000)
    assert with_it is not None
    assert without is not None
    tokens = [int(text.partition("about ")[2].partition(" tokens")[0].replace(",", "")) for text in (with_it, without)]
    assert tokens[0] > tokens[1] + 1000 * 20


def test_a_time_bounds_what_is_told_and_a_resumed_run_keeps_it(store: str, tmp_path: Path) -> None:
    until = (NOW - timedelta(days=30)).isoformat()
    with openai_server("vllm") as server:
        backend = backend_on(server, tmp_path)
        early = told(backend, store, ["a000"], RunFolder.at(tmp_path / "run"), until)
        assert [one.job_id for one in early.histories["a000"]] == ["j003"]
        assert early.told_until == until
        folder = RunFolder.at(tmp_path / "run")
        folder.write_yaml(CONFIG, {"told_until": until})
        assert told(backend, store, ["a000"], folder) == early
        assert told(backend_on(server, tmp_path, memory=0), store, ["a000"]).told_until is None
